"""One exchange from its head to its end: opened, admitted, forwarded and ended, with its states and its ports."""
