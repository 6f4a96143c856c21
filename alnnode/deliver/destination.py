"""The port that results leave through, its shipped fake, and the choice between the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from alnnode.errors import DeliveryError, DeliveryRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from alnnode.settings import Destination as DestinationSettings


class StoredObject(Protocol):
    """A Part 10 file that lies in the outbox; its bytes leave as they are."""

    @property
    def sop_class_uid(self) -> str: ...  # noqa: D102 - the attribute's own name
    @property
    def sop_instance_uid(self) -> str: ...  # noqa: D102
    @property
    def transfer_syntax_uid(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> Path: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class OutboxFile:
    """The plain `StoredObject`."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path


class Destination(Protocol):
    """One place that results go to."""

    @property
    def name(self) -> str:
        """Name in the settings."""

    def echo(self) -> None:
        """Ask whether the destination answers (C-ECHO, or a DICOMweb search).

        Raises:
            DeliveryError: it does not answer now.
            DeliveryRefused: it answers, and refuses this node.
        """

    def send(self, objects: Sequence[StoredObject]) -> None:
        """Send all objects, or raise; to send an object again that arrived before does no harm.

        Raises:
            DeliveryError: not all were taken, and a later try may succeed.
            DeliveryRefused: an object was refused for good; the others were sent.
        """


@dataclass
class InMemoryDestination:
    """A destination that keeps what it gets: for tests, and for trying a node without a PACS.

    Attributes:
        stored: bytes by SOP Instance UID.
        failures: raised one by one by the next calls of `send` or `echo`, before anything is kept.
    """

    name: str = "memory"
    stored: dict[str, bytes] = field(default_factory=dict)
    failures: list[DeliveryError] = field(default_factory=list)

    def echo(self) -> None:
        """Answer, or raise the next of ``failures``."""
        if self.failures:
            raise self.failures.pop(0)

    def send(self, objects: Sequence[StoredObject]) -> None:
        """Keep the objects, or raise the next of ``failures``."""
        self.echo()
        self.stored.update((item.sop_instance_uid, item.path.read_bytes()) for item in objects)


@dataclass
class Failures:
    """Collects what one batch did not get through, and raises the gravest at the end."""

    name: str
    refused: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)

    def conclude(self) -> None:
        """Raise when anything failed: refused counts before later, since it needs a person.

        Raises:
            DeliveryError: something may be taken later.
            DeliveryRefused: something never will.
        """
        if self.refused:
            raise DeliveryRefused(f"{self.name}: {_summary(self.refused)}")
        if self.later:
            raise DeliveryError(f"{self.name}: {_summary(self.later)}")


def _summary(messages: list[str]) -> str:
    different = list(dict.fromkeys(messages))
    rest = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
    return "; ".join(different[:3]) + rest


def connect(settings: DestinationSettings, calling_ae_title: str) -> Destination:
    """Return the destination that ``settings`` describes; nothing is sent yet."""
    if settings.kind == "stow":
        from alnnode.deliver.stow_client import StowDestination  # noqa: PLC0415 - a node with only C-STORE needs no HTTP client

        return StowDestination(settings)
    from alnnode.deliver.cstore import CStoreDestination  # noqa: PLC0415

    return CStoreDestination(settings, calling_ae_title)
