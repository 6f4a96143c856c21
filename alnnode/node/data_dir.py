"""The data directory of a node."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from pathlib import Path

LOCK = "serve.lock"


def make_data_dir(folder: Path) -> None:
    """Create the data directory for its owner alone, if it does not exist.

    Raises:
        ServiceError: it cannot be created.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def open_lock(folder: Path) -> IO[str]:
    """Open the file by which one `alnnode serve` at a time uses a data directory; create what is missing.

    Raises:
        ServiceError: the folder cannot be created or written.
    """
    make_data_dir(folder)
    try:
        return (folder / LOCK).open("w")
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(folder: Path, error: OSError) -> ServiceError:
    """Return the error for a data directory that cannot be written."""
    return ServiceError(
        f"cannot write into the data directory {folder} ({error.strerror}); correct [node] data_dir, "
        "or give this user the right to write there"
    )
