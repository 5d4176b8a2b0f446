"""The resource tree: guards, the proxying leaf, and the one place that composes them."""
