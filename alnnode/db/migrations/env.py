"""The environment of Alembic; `alnnode.db.schema` passes the connection."""

from alembic import context

from alnnode.db.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
