"""The destinations as the status page shows them: those of the settings, also before the first delivery, and those with deliveries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alnnode.db.pauses import destination_target
from alnnode.status.effective_settings import without_credentials
from alnnode.status.overview import DestinationCounts

if TYPE_CHECKING:
    from alnnode.db.pauses import Pause
    from alnnode.settings import Destination
    from alnnode.status.services import StatusServices


@dataclass(frozen=True, slots=True)
class DestinationView:
    """A destination with its deliveries by state.

    Attributes:
        settings: None if the settings no longer name it.
        pause: None if it is not paused.
    """

    name: str
    settings: Destination | None
    counts: DestinationCounts
    pause: Pause | None

    @property
    def failing(self) -> bool:
        """Whether results wait because an attempt failed, or are not delivered until an administrator acts."""
        return bool(self.counts.failed) or (self.pause is None and bool(self.counts.trying))

    @property
    def address(self) -> str:
        """Where the results go."""
        one = self.settings
        if one is None:
            return ""
        return f"DICOMweb {without_credentials(one.url)}" if one.kind == "stow" else f"{one.ae_title} at {one.host}:{one.port}"


def destination_views(services: StatusServices) -> tuple[DestinationView, ...]:
    """Return the destinations, in the order of the settings, then those that the settings no longer name."""
    counts = {one.name: one for one in services.overview.destinations()}
    configured = {one.name: one for one in services.settings.destinations}
    pauses = services.pauses.all()
    return tuple(
        DestinationView(name, configured.get(name), counts.get(name) or _none(name), pauses.get(destination_target(name)))
        for name in dict.fromkeys((*configured, *counts))
    )


def _none(name: str) -> DestinationCounts:
    return DestinationCounts(name, 0, 0, 0, 0, 0, None, None)
