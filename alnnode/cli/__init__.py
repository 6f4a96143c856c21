"""The ``alnnode`` command."""
