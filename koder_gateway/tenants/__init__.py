"""The tenant registry: from a file or from the Admin service, with its cache."""
