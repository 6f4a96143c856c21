"""What the node remembers: the SQL database (the truth) and the spool (the bytes)."""

from __future__ import annotations

from alnnode.store.schema import migrate, schema_state

__all__ = ["migrate", "schema_state"]
