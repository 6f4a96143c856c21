"""Alembic's environment: the connection is given by `alnnode.store.schema`."""

from alembic import context

from alnnode.store.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
