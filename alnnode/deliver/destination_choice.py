"""Choose the implementation of a destination by its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alnnode.deliver.destination import Destination
    from alnnode.settings import Destination as DestinationSettings


def connect(settings: DestinationSettings, calling_ae_title: str) -> Destination:
    """Return the destination that ``settings`` describe; it opens no connection yet."""
    if settings.kind == "stow":
        from alnnode.deliver.stow_client import StowDestination  # noqa: PLC0415 - a node with only C-STORE needs no HTTP client

        return StowDestination(settings)
    from alnnode.deliver.cstore import CStoreDestination  # noqa: PLC0415

    return CStoreDestination(settings, calling_ae_title)
