"""Parameters of one phantom patient and one acquisition, sampled from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.settings import Arms, Phase, Position
from alnnode.records import Side

if TYPE_CHECKING:
    from alnnode.phantom.settings import PhantomSettings

_BODY_LENGTH_MM = 210
_THICKNESSES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
# Mean HU of arteries, mean HU of veins, standard deviation of both.
_BLOOD_HU = {Phase.NONE: (42.0, 41.0, 5.0), Phase.ARTERIAL: (255.0, 95.0, 25.0), Phase.VENOUS: (150.0, 140.0, 18.0)}


@dataclass(frozen=True, slots=True)
class PatientParameters:
    """The sampled properties of one patient and one acquisition; lengths in mm.

    The UIDs of a phantom depend on the names, the order and the values of these fields (`dicom.object_uid`).

    Attributes:
        slices: number of slices.
        thickness: slice thickness and slice distance.
        spacing: pixel spacing.
        lowest: patient z of the lowest slice.
        position: Patient Position.
        arms: arms raised above the head or beside the body.
        phase: contrast phase.
        noise: standard deviation of the noise in soft tissue, HU.
        padding: whether voxels outside the circular field of view hold the padding value.
        metastatic: whether the patient has metastatic nodes.
        primary: the side of the primary tumour.
        bilateral: whether both axillae are involved.
        scale: size of the body, 1 = mean.
        width: width of the right and of the left half of the body, 1 = mean.
        tilt: rotation about the body axis, as displacement in y per mm in x.
        shift: (x, y) of the body axis.
        fat: thickness of the subcutaneous fat.
        muscle: thickness of the muscles, 1 = mean.
        breast: size of the breasts.
        gland: share of glandular tissue in the breasts, 0 to 1.
        psf: width of the point spread function.
        fat_hu: attenuation of fat, HU.
        muscle_hu: attenuation of muscle, HU.
        artery_hu: attenuation of arteries, HU.
        vein_hu: attenuation of veins, HU.
        rib_phase: offset of the ribs along z, as a share of their distance.
        marrow_hu: attenuation of bone marrow, HU.
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


def sample_patient(rng: np.random.Generator, settings: PhantomSettings) -> PatientParameters:
    """Sample a patient; a value that ``settings`` fixes replaces the sampled one."""
    slices, thickness = _sample_slices(rng, settings)
    scale = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12))
    # A technologist chooses the field of view so that the image contains both axillae.
    wanted = max(float(rng.normal(0.77, 0.06)), 330 * scale / settings.size)
    spacing = round(float(np.clip(wanted, *settings.spacing_mm)), 4)
    extent = slices * thickness
    lowest = -0.55 * extent + float(rng.uniform(-6, 6)) - 0.03 * extent
    usual_phase = Phase(rng.choice(list(Phase), p=[0.4, 0.2, 0.4]))
    phase = settings.phase or usual_phase
    artery, vein, spread = _BLOOD_HU[phase]
    # Fixed values are sampled too: a fixed option then leaves the other properties of the patient unchanged.
    position = Position(rng.choice(list(Position), p=[0.75, 0.15, 0.10]))
    arms = Arms(rng.choice(list(Arms), p=[0.75, 0.25]))
    noise = float(rng.uniform(8, 22))
    padding = bool(rng.random() < 0.5)
    metastatic = bool(rng.random() < 0.72)
    # The involved side is independent of everything else in the image.
    primary = Side.LEFT if rng.random() < 0.5 else Side.RIGHT
    bilateral = bool(rng.random() < 0.18)
    return PatientParameters(
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


def _sample_slices(rng: np.random.Generator, settings: PhantomSettings) -> tuple[int, float]:
    """Return the number of slices and their thickness, mm."""
    low, high = settings.thickness_mm
    usual = [t for t in _THICKNESSES if low <= t <= high]
    thickness = float(rng.choice(usual)) if usual else low
    slices = int(rng.integers(settings.slices[0], settings.slices[1] + 1))
    # The body is modelled over 210 mm only: a series of thick slices has fewer of them, within the range of the settings.
    return max(settings.slices[0], min(slices, int(_BODY_LENGTH_MM / thickness))), thickness
