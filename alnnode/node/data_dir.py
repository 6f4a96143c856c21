"""The data directory of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from pathlib import Path


def make_data_dir(folder: Path) -> None:
    """Create the data directory for its owner alone, if it does not exist.

    Raises:
        ServiceError: it cannot be created.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(folder: Path, error: OSError) -> ServiceError:
    """Return the error for a data directory that cannot be written."""
    return ServiceError(
        f"cannot write into the data directory {folder} ({error.strerror}); correct [node] data_dir, "
        "or give this user the right to write there"
    )
