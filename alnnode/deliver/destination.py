"""The interface of every destination of results, and what its implementations share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from alnnode.errors import DeliveryError, DeliveryRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class StoredObject(Protocol):
    """A Part 10 file in the outbox, which is sent byte for byte."""

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
    """A system that receives results."""

    @property
    def name(self) -> str:
        """Name in the settings."""

    def echo(self) -> None:
        """Check whether the destination responds (C-ECHO, or a DICOMweb search).

        Raises:
            DeliveryError: the destination does not respond now.
            DeliveryRefused: the destination responds, and refuses this node.
        """

    def send(self, objects: Sequence[StoredObject]) -> None:
        """Send all objects; an object that the destination already has may be sent again.

        Raises:
            DeliveryError: the destination did not accept every object; a retry may succeed.
            DeliveryRefused: the destination refused an object permanently; the others were sent.
        """


@dataclass
class BatchFailures:
    """Collects the failures of one batch, and raises the most serious one at the end.

    Attributes:
        refused: messages about objects that the destination never accepts.
        later: messages about objects that a retry may deliver.
    """

    refused: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)

    def raise_if_any(self) -> None:
        """Raise when an object failed; a refusal first, because an administrator must act.

        Raises:
            DeliveryError: a retry may deliver the objects.
            DeliveryRefused: the destination never accepts an object.
        """
        if self.refused:
            raise DeliveryRefused(_summary(self.refused))
        if self.later:
            raise DeliveryError(_summary(self.later))


def _summary(messages: list[str]) -> str:
    different = list(dict.fromkeys(messages))
    rest = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
    return "; ".join(different[:3]) + rest
