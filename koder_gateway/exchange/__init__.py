"""One exchange from its head to its end: its states, and the ports of those who take part in it."""
