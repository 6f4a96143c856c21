"""Dimensions of the trunk at one height, in canonical coordinates (`body_frame`), and surfaces that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.settings import Arms

if TYPE_CHECKING:
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray

    Table = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class TrunkSection:
    """Dimensions of the trunk at canonical height ``z``, mm."""

    z: float
    half_width: float  # of the rib cage
    half_depth: float  # of the rib cage
    centre_v: float  # of the rib cage
    trunk_half_width: float
    trunk_front: float  # distance from the centre to the skin of the chest
    trunk_back: float  # distance from the centre to the skin of the back
    scapula_shift: float  # towards the side
    posterior_fold: float  # u of the lateral end of the posterior wall
    subscapularis: float  # thickness
    infraspinatus: float  # thickness
    pectoralis_minor: tuple[float, float, float]  # u of the centre, half width, thickness
    pectoralis_major: float  # thickness
    anterior_fold: float  # u of the lateral end of the pectoralis major


# Values (second list) at canonical heights (first list), mm.
_HALF_WIDTH = ([-140, -110, -60, 0, 40, 70, 90, 108], [132, 130, 126, 110, 88, 62, 38, 6])
_HALF_DEPTH = ([-140, -110, -60, 0, 40, 70, 90, 108], [95, 92, 88, 76, 60, 44, 30, 6])
_CENTRE_V = ([-110, 0, 40, 70, 90], [0, 2, 8, 16, 20])
_SOFT_TISSUE_ARMS_UP = ([-140, -100, -60, 0, 40, 75, 100, 120], [18, 22, 34, 58, 78, 100, 95, 60])
_SOFT_TISSUE_ARMS_DOWN = ([-140, -100, -60, 0, 40, 75, 100, 120], [16, 18, 26, 44, 76, 108, 90, 40])


def section_at(z: float, patient: PatientParameters) -> TrunkSection:
    """Return the dimensions of the trunk at canonical height ``z``."""

    def at(table: Table) -> float:
        return float(np.interp(z, table[0], table[1]))

    up = patient.arms is Arms.UP
    half_width, half_depth = at(_HALF_WIDTH), at(_HALF_DEPTH)
    fat, muscle = patient.fat, patient.muscle
    return TrunkSection(
        z=z,
        half_width=half_width,
        half_depth=half_depth,
        centre_v=at(_CENTRE_V),
        trunk_half_width=half_width + at(_SOFT_TISSUE_ARMS_UP if up else _SOFT_TISSUE_ARMS_DOWN) + 0.75 * (fat - 12),
        trunk_front=half_depth + 22 + 0.8 * fat,
        trunk_back=half_depth + 40 + 0.5 * fat,
        scapula_shift=0.6 * (half_width - 110) - (0 if up else 8),
        posterior_fold=at(([-90, -50, 0, 50, 80], [134, 140, 146, 152, 150] if up else [130, 135, 140, 146, 148])),
        subscapularis=at(([-95, -60, 0, 50, 80], [0, 9, 19, 24, 12])) * muscle,
        infraspinatus=at(([-100, -70, 0, 50, 90], [0, 9, 20, 24, 14])) * muscle,
        pectoralis_minor=(
            at(([-75, 0, 58], [70, 92, 122])),
            at(([-80, -60, 0, 40, 60], [0, 22, 24, 14, 5])),
            at(([-80, -60, -10, 40, 60], [0, 6, 11, 11, 5])) * muscle,
        ),
        pectoralis_major=at(([-125, -90, -20, 40, 62, 80], [0, 8, 14, 17, 10, 0])) * muscle,
        anterior_fold=at(([-120, -80, 0, 60], [85, 112, 150, 168])),
    )


def rib_cage_front(section: TrunkSection, u: FloatArray) -> FloatArray:
    """Return v of the front of the rib cage at ``u``; lateral to the rib cage, of a line that continues to the side and back."""
    ratio = np.clip(u / section.half_width, 0, 0.97)
    beside = np.maximum(u - 0.97 * section.half_width, 0)
    front: FloatArray = (section.centre_v - section.half_depth * np.power(1 - ratio**2.3, 1 / 2.3) + 0.1 * beside).astype(
        np.float32
    )
    return front


def pectoralis_major_floor(section: TrunkSection, u: FloatArray) -> FloatArray:
    """Return v of the deep surface of the pectoralis major at ``u``."""
    front = rib_cage_front(section, u)
    flat = section.centre_v - section.half_depth + 14 + 0.30 * np.maximum(u - 45, 0)
    floor: FloatArray = np.minimum(front - 2, flat).astype(np.float32)
    # The pectoralis minor needs room between the ribs and the pectoralis major.
    centre, half_width, thickness = section.pectoralis_minor
    room = (thickness + 4) * np.exp(-(((u - centre) / (half_width + 12)) ** 2))
    return np.asarray(floor - room, np.float32)


def scapula_front(section: TrunkSection, u: FloatArray) -> FloatArray:
    """Return v of the front of the scapula at ``u``."""
    line: FloatArray = (np.float32(scapula_front_at(section, 60)) - np.float32(0.80) * (u - 60)).astype(np.float32)
    return line


def scapula_front_at(section: TrunkSection, u: float) -> float:
    """Return v of the front of the scapula at one ``u``, in double precision."""
    return section.centre_v + 0.9 * section.half_depth + 26 + 0.8 * section.scapula_shift - 0.80 * (u - 60)


def axilla_walls(patient: PatientParameters, u: float, z: float) -> tuple[float, float]:
    """Return v of the anterior and of the posterior wall of the axilla at ``u`` and ``z`` (mm)."""
    section = section_at(z, patient)
    at = np.array([u], np.float32)
    centre, half, thick = section.pectoralis_minor
    inside = max(0.0, 1 - ((u - centre) / half) ** 2) if half > 2 else 0.0
    front = float(pectoralis_major_floor(section, at)[0]) + (2.5 + thick * inside**0.5 if inside else 0.0)
    middle, reach = (64 + section.posterior_fold) / 2, (section.posterior_fold - 64) / 2
    taper = max(0.0, 1 - ((u - middle) / reach) ** 2) ** 0.5
    back = float(scapula_front(section, at)[0]) - section.subscapularis * taper
    return front, max(back, front + 4)
