"""A destination without a network, for tests and for trying a node without a PACS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.deliver.destination import StoredObject
    from alnnode.errors import DeliveryError


@dataclass
class InMemoryDestination:
    """Keeps the bytes of the objects that it receives.

    Attributes:
        stored: bytes by SOP Instance UID.
        failures: each call of `send` or `echo` raises the next of these errors, and stores nothing, until none is left.
    """

    name: str = "memory"
    stored: dict[str, bytes] = field(default_factory=dict)
    failures: list[DeliveryError] = field(default_factory=list)

    def echo(self) -> None:
        """Return, or raise the next of ``failures``."""
        if self.failures:
            raise self.failures.pop(0)

    def send(self, objects: Sequence[StoredObject]) -> None:
        """Store the objects, or raise the next of ``failures``."""
        self.echo()
        self.stored.update((item.sop_instance_uid, item.path.read_bytes()) for item in objects)
