"""Read the identity of the model bundle for the status page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.errors import BundleError
from alnnode.model import bundle

if TYPE_CHECKING:
    from alnnode.records import ModelIdentity
    from alnnode.settings import Settings


class CachedModelIdentity:
    """Reads the bundle once: it is immutable."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._identity: ModelIdentity | None = None

    def read(self) -> ModelIdentity | None:
        """Return the identity; None if the bundle cannot be read at present."""
        if self._identity is None:
            try:
                self._identity = bundle.load(bundle.resolve(self._settings.analysis.bundle)).identity
            except BundleError:
                return None
        return self._identity
