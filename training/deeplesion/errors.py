"""What this package raises."""

from __future__ import annotations

from alnnode.errors import AlnnodeError


class DeepLesionError(AlnnodeError):
    """A file of the data set is missing or cannot be used; the text names the file and says what to do."""
