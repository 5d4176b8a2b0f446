"""An operator's files and the gateway's own: PEM that is read, and private files that are written whole."""
