"""Operating system processes: children that end with their parent, supervision, heartbeat files."""
