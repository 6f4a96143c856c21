"""Open the spool that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.spool.spool import Spool

if TYPE_CHECKING:
    from alnnode.settings import Settings


def open_spool(settings: Settings) -> Spool:
    """Return the spool: a folder, or a bucket.

    Raises:
        OSError: the folder cannot be made.
        ServiceError: the object storage cannot be used.
    """
    root = settings.node.data_dir / "spool"
    if not settings.spool.bucket:
        return Spool(root)
    from alnnode.spool.object_spool import ObjectSpool  # noqa: PLC0415 - most nodes have a folder

    return ObjectSpool(root, settings.spool)
