"""Files of received objects and of results; the only maker of paths from UIDs."""
