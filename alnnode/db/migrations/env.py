"""Alembic's environment: the connection is given by `alnnode.db.schema`."""

from alembic import context

from alnnode.db.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
