"""Truth (database) and bytes (spool)."""
