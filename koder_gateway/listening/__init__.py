"""Where clients come in: endpoint strings, listeners, and the PROXY header."""
