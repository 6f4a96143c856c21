"""What may be asked of a phantom, and what is drawn from the seed where nothing is asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from alnnode.errors import AlnnodeError
from alnnode.records import Side


class PhantomError(AlnnodeError):
    """A phantom was asked for that cannot be made."""


class Position(StrEnum):
    """Patient Position (PS3.3 C.7.3.1.1.2), as far as phantoms know it."""

    HFS = "HFS"
    FFS = "FFS"
    HFP = "HFP"


class Arms(StrEnum):
    """Where the arms lie."""

    UP = "up"
    DOWN = "down"


class Phase(StrEnum):
    """Contrast phase."""

    NONE = "none"
    ARTERIAL = "arterial"
    VENOUS = "venous"


class Surroundings(StrEnum):
    """What lies around the nodes: a plain drawing, or axillae as in patients (docs/phantom.md)."""

    PLAIN = "plain"
    AXILLA = "axilla"


@dataclass(frozen=True, slots=True)
class PhantomSettings:
    """Options of a phantom; ``None`` is drawn from the seed.

    Attributes:
        size: rows and columns, a multiple of 2.
        slices: lowest and highest number of slices.
        thickness_mm: lowest and highest slice thickness (the slice distance is the same), mm.
        spacing_mm: lowest and highest pixel spacing, mm.
        min_nodes_per_side: nodes in one axilla, 0 to 12; fewer only where there is no room.
        max_nodes_per_side: likewise.
        sides: the axillae that may hold nodes.
        position: Patient Position.
        arms: arms raised above the head or beside the body.
        phase: contrast phase.
        noise_hu: standard deviation of the noise in soft tissue, HU.
        metastatic: whether the patient has metastatic nodes at all.
        padding: whether voxels outside the circular field of view hold the padding value.
        surroundings: what the nodes lie in, and whether they may touch it and each other.
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
        """Refuse what cannot be made.

        Raises:
            PhantomError: an option is out of its range; the text names it.
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


@dataclass(frozen=True, slots=True)
class Habit:
    """One patient and one acquisition, drawn.

    Lengths in mm; ``scale`` stretches the body, ``width`` the sides (right, left) and ``tilt`` rolls it.
    """

    slices: int
    thickness: float
    spacing: float
    lowest: float
    position: Position
    arms: Arms
    phase: Phase
    noise: float
    padding: bool
    metastatic: bool
    primary: Side
    bilateral: bool
    scale: float
    width: tuple[float, float]
    tilt: float
    shift: tuple[float, float]
    fat: float
    muscle: float
    breast: float
    gland: float
    psf: float
    fat_hu: float
    muscle_hu: float
    artery_hu: float
    vein_hu: float
    rib_phase: float
    marrow_hu: float


_THICKNESSES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
_BLOOD = {Phase.NONE: (42.0, 41.0, 5.0), Phase.ARTERIAL: (255.0, 95.0, 25.0), Phase.VENOUS: (150.0, 140.0, 18.0)}


def draw_habit(rng: np.random.Generator, settings: PhantomSettings) -> Habit:
    """Draw a patient; what ``settings`` fixes is kept."""
    low, high = settings.thickness_mm
    usual = [t for t in _THICKNESSES if low <= t <= high]
    thickness = float(rng.choice(usual)) if usual else low
    slices = int(rng.integers(settings.slices[0], settings.slices[1] + 1))
    # Nothing of the body is modelled beyond 210 mm: thicker slices mean fewer of them, within what was asked.
    slices = max(settings.slices[0], min(slices, int(210 / thickness)))
    scale = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12))
    # A technologist chooses the field of view so that both axillae are on the image.
    wanted = max(float(rng.normal(0.77, 0.06)), 330 * scale / settings.size)
    spacing = round(float(np.clip(wanted, *settings.spacing_mm)), 4)
    extent = slices * thickness
    lowest = -0.55 * extent + float(rng.uniform(-6, 6)) - 0.03 * extent
    usual_phase = Phase(rng.choice(list(Phase), p=[0.4, 0.2, 0.4]))
    phase = settings.phase or usual_phase
    artery, vein, spread = _BLOOD[phase]
    # Drawn whether asked for or not, so that fixing one option leaves the rest of the patient as it was.
    position = Position(rng.choice(list(Position), p=[0.75, 0.15, 0.10]))
    arms = Arms(rng.choice(list(Arms), p=[0.75, 0.25]))
    noise = float(rng.uniform(8, 22))
    padding = bool(rng.random() < 0.5)
    metastatic = bool(rng.random() < 0.72)
    # The involved side must not follow from anything that the image shows elsewhere.
    primary = Side.LEFT if rng.random() < 0.5 else Side.RIGHT
    bilateral = bool(rng.random() < 0.18)
    return Habit(
        slices=slices,
        thickness=thickness,
        spacing=spacing,
        lowest=lowest,
        position=settings.position or position,
        arms=settings.arms or arms,
        phase=phase,
        noise=noise if settings.noise_hu is None else settings.noise_hu,
        padding=padding if settings.padding is None else settings.padding,
        primary=primary,
        bilateral=bilateral,
        metastatic=metastatic if settings.metastatic is None else settings.metastatic,
        scale=scale,
        width=(float(rng.normal(1, 0.025)), float(rng.normal(1, 0.025))),
        tilt=float(rng.normal(0, 0.03)),
        shift=(float(rng.normal(0, 6)), float(rng.normal(-4, 5))),
        fat=float(np.clip(rng.lognormal(np.log(15), 0.4), 6, 34)),
        muscle=float(np.clip(rng.normal(1.0, 0.15), 0.65, 1.35)),
        breast=float(np.clip(rng.normal(28, 16), 0, 62)),
        gland=float(rng.uniform(0.0, 1.0)),
        psf=float(rng.uniform(1.0, 1.7)),
        fat_hu=float(rng.normal(-102, 4)),
        muscle_hu=float(rng.normal(54, 4)) + (0.0 if phase is Phase.NONE else 8.0),
        artery_hu=float(rng.normal(artery, spread)),
        vein_hu=float(rng.normal(vein, spread)),
        rib_phase=float(rng.random()),
        marrow_hu=float(rng.normal(200, 35)),
    )
