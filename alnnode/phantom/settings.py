"""Options of a phantom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from alnnode.errors import AlnnodeError
from alnnode.records import Side


class PhantomError(AlnnodeError):
    """Signal settings of a phantom that are out of range, or an output folder that is in use."""


class Position(StrEnum):
    """The values of Patient Position (PS3.3 C.7.3.1.1.2) that phantoms support."""

    HFS = "HFS"
    FFS = "FFS"
    HFP = "HFP"


class Arms(StrEnum):
    """Position of the arms."""

    UP = "up"
    DOWN = "down"


class Phase(StrEnum):
    """Contrast phase."""

    NONE = "none"
    ARTERIAL = "arterial"
    VENOUS = "venous"


class Surroundings(StrEnum):
    """The tissue around the nodes: plain fat and muscles, or axillae that resemble those of patients (docs/phantom.md)."""

    PLAIN = "plain"
    AXILLA = "axilla"


@dataclass(frozen=True, slots=True)
class PhantomSettings:
    """Options of a phantom; `sample_patient` samples each option that is None.

    Attributes:
        size: rows and columns, a multiple of 2.
        slices: minimum and maximum number of slices.
        thickness_mm: minimum and maximum slice thickness, mm; the slice distance is equal to it.
        spacing_mm: minimum and maximum pixel spacing, mm.
        min_nodes_per_side: minimum number of nodes in one axilla, 0 to 12; an axilla without enough room gets fewer.
        max_nodes_per_side: maximum number of nodes in one axilla, 0 to 12.
        sides: the axillae that may hold nodes.
        position: Patient Position.
        arms: arms raised above the head or beside the body.
        phase: contrast phase.
        noise_hu: standard deviation of the noise in soft tissue, HU.
        metastatic: whether the patient has metastatic nodes.
        padding: whether voxels outside the circular field of view hold the padding value.
        surroundings: the tissue around the nodes, and whether nodes may touch it and each other.
    """

    size: int = 512
    slices: tuple[int, int] = (80, 120)
    thickness_mm: tuple[float, float] = (1.0, 3.0)
    spacing_mm: tuple[float, float] = (0.6, 0.9)
    min_nodes_per_side: int = 0
    max_nodes_per_side: int = 12
    sides: tuple[Side, ...] = (Side.RIGHT, Side.LEFT)
    position: Position | None = None
    arms: Arms | None = None
    phase: Phase | None = None
    noise_hu: float | None = None
    metastatic: bool | None = None
    padding: bool | None = None
    surroundings: Surroundings = Surroundings.PLAIN

    def __post_init__(self) -> None:
        """Check the range of each option.

        Raises:
            PhantomError: an option is out of range; the message names the option.
        """
        if self.size < 64 or self.size % 2:
            raise PhantomError(f"size is {self.size}: an even number of at least 64 is needed")
        for name, (low, high), (least, most) in (
            ("slices", self.slices, (8, 600)),
            ("thickness_mm", self.thickness_mm, (0.5, 10.0)),
            ("spacing_mm", self.spacing_mm, (0.3, 4.0)),
            ("nodes per side", (self.min_nodes_per_side, self.max_nodes_per_side), (0, 12)),
        ):
            if not least <= low <= high <= most:
                raise PhantomError(f"{name} is {low} to {high}: a range within {least} to {most} is needed")
        if self.noise_hu is not None and not 0 <= self.noise_hu <= 100:
            raise PhantomError(f"noise_hu is {self.noise_hu}: 0 to 100 is needed")
