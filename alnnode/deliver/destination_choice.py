"""Choose the implementation of a destination by its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from alnnode.deliver.destination import Destination
    from alnnode.settings import Destination as DestinationSettings
    from alnnode.settings import DestinationCStore, DestinationStow


def _cstore(settings: DestinationCStore, calling_ae_title: str) -> Destination:
    from alnnode.deliver.cstore import CStoreDestination  # noqa: PLC0415 - a node with only STOW-RS needs no DIMSE client

    return CStoreDestination(settings, calling_ae_title)


def _stow(settings: DestinationStow, _calling_ae_title: str) -> Destination:
    from alnnode.deliver.stow_client import StowDestination  # noqa: PLC0415 - a node with only C-STORE needs no HTTP client

    return StowDestination(settings)


# By the kind of the settings; a function takes the settings of its kind and the AE title of the node.
CONNECTORS: Mapping[str, Callable[[Any, str], Destination]] = {"cstore": _cstore, "stow": _stow}


def connect(settings: DestinationSettings, calling_ae_title: str) -> Destination:
    """Return the destination that ``settings`` describe; it opens no connection yet."""
    return CONNECTORS[settings.kind](settings, calling_ae_title)
