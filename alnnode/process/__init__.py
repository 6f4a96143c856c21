"""Processes of the operating system: children that end with their parent, supervision, heartbeat files."""
