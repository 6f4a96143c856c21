"""The files of received objects and of results; the only package that makes paths from UIDs."""
