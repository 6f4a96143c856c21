"""What a run over many hosts has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run has.

    Attributes:
        listeners: hosts with ``alnnode listen``.
        secure: hosts with ``alnnode listen`` for DICOM TLS; with one, every fourth study is sent over TLS.
        web: hosts with ``alnnode web``; with one, every third study is sent by STOW-RS.
        sweep: whether one more host runs ``alnnode sweep``.
        store: whether the spool is in an object storage, and each host has a folder of its own.
        skew: seconds by which clocks differ at most from that of the machine.
        seconds: of one simulated analysis.
        lease: of an analysis, in seconds.
        code: the folder of the release that runs at first.
    """

    listeners: tuple[str, ...] = ("listen1", "listen2")
    secure: tuple[str, ...] = ("listen3",)
    web: tuple[str, ...] = ("web1",)
    sweep: bool = True
    store: bool = False
    skew: int = 420
    seconds: float = 0.5
    lease: float = 20.0
    code: Path = REPOSITORY

    @property
    def hosts(self) -> list[str]:
        """Return the names of all hosts, of the peers too."""
        sweep = ["sweep"] if self.sweep else []
        store = ["store"] if self.store else []
        return [
            "lb",
            *self.listeners,
            *self.secure,
            *self.web,
            "work1",
            "work2",
            "deliver",
            *sweep,
            "db",
            "redis",
            *store,
            "pacs",
            "ward",
        ]
