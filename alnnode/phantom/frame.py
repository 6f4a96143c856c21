"""Body coordinates: where canonical anatomy lies in a patient, and how lengths vary from the feet to the head.

*Canonical* coordinates are millimetres in a mean body: ``u`` = distance from the midline (both sides alike), ``y`` to the
back, ``z`` to the head with 0 at the middle of the axilla. *Patient* coordinates are LPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.records import Side

if TYPE_CHECKING:
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray


def side_sign(side: Side) -> int:
    """Return +1 for the patient's left (+x), -1 for the right."""
    return 1 if side is Side.LEFT else -1


@dataclass(frozen=True, slots=True)
class Frame:
    """The map between canonical and patient coordinates of one patient."""

    scale: float
    width: tuple[float, float]
    tilt: float
    shift: tuple[float, float]

    @classmethod
    def of(cls, patient: PatientParameters) -> Frame:
        """Return the frame of a patient."""
        return cls(patient.scale, patient.width, patient.tilt, patient.shift)

    def to_patient(self, side: Side, u: float, y: float, z: float) -> tuple[float, float, float]:
        """Return the patient coordinates (x, y, z), mm, of a canonical position on one side."""
        sign = side_sign(side)
        x = sign * u * self.scale * self.width[(sign + 1) // 2]
        return x + self.shift[0], y * self.scale + self.tilt * x + self.shift[1], z * self.scale

    def from_patient(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return canonical ``u`` and signed ``u`` (shape of ``x``) and ``y`` (broadcast) of patient positions."""
        centred = x - np.float32(self.shift[0])
        width = np.where(centred < 0, self.width[0], self.width[1]).astype(np.float32)
        signed: FloatArray = centred / (width * np.float32(self.scale))
        upright = (y - np.float32(self.shift[1]) - np.float32(self.tilt) * centred) / np.float32(self.scale)
        return np.abs(signed), signed, upright.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Section:
    """Lengths of the trunk at one height, canonical mm."""

    z: float
    a: float  # half width of the rib cage
    b: float  # half depth of the rib cage
    yc: float  # centre of the rib cage
    outer: float  # half width of the trunk
    front: float  # depth of the trunk in front of the centre
    back: float
    scapula: float  # shift of the shoulder blade to the side
    lateral: float  # lateral end of the posterior wall
    subscapularis: float  # thickness
    infraspinatus: float  # thickness
    minor: tuple[float, float, float]  # pectoralis minor: centre, half width, thickness
    major: float  # thickness of the pectoralis major
    fold: float  # lateral end of the pectoralis major


_A = ([-140, -110, -60, 0, 40, 70, 90, 108], [132, 130, 126, 110, 88, 62, 38, 6])
_B = ([-140, -110, -60, 0, 40, 70, 90, 108], [95, 92, 88, 76, 60, 44, 30, 6])
_YC = ([-110, 0, 40, 70, 90], [0, 2, 8, 16, 20])
_OUTER_UP = ([-140, -100, -60, 0, 40, 75, 100, 120], [18, 22, 34, 58, 78, 100, 95, 60])
_OUTER_DOWN = ([-140, -100, -60, 0, 40, 75, 100, 120], [16, 18, 26, 44, 76, 108, 90, 40])


def level(z: float, patient: PatientParameters) -> Section:
    """Return the lengths of the trunk at canonical height ``z``."""

    def at(table: tuple[list[int], list[int]]) -> float:
        return float(np.interp(z, table[0], table[1]))

    up = patient.arms == "up"
    a, b, yc = at(_A), at(_B), at(_YC)
    extra = patient.fat
    outer = a + at(_OUTER_UP if up else _OUTER_DOWN) + 0.75 * (extra - 12)
    muscle = patient.muscle
    lateral = at(([-90, -50, 0, 50, 80], [134, 140, 146, 152, 150] if up else [130, 135, 140, 146, 148]))
    centre = at(([-75, 0, 58], [70, 92, 122]))
    half = at(([-80, -60, 0, 40, 60], [0, 22, 24, 14, 5]))
    thick = at(([-80, -60, -10, 40, 60], [0, 6, 11, 11, 5])) * muscle
    return Section(
        z=z,
        a=a,
        b=b,
        yc=yc,
        outer=outer,
        front=b + 22 + 0.8 * extra,
        back=b + 40 + 0.5 * extra,
        scapula=0.6 * (a - 110) - (0 if up else 8),
        lateral=lateral,
        subscapularis=at(([-95, -60, 0, 50, 80], [0, 9, 19, 24, 12])) * muscle,
        infraspinatus=at(([-100, -70, 0, 50, 90], [0, 9, 20, 24, 14])) * muscle,
        minor=(centre, half, thick),
        major=at(([-125, -90, -20, 40, 62, 80], [0, 8, 14, 17, 10, 0])) * muscle,
        fold=at(([-120, -80, 0, 60], [85, 112, 150, 168])),
    )


def cage_front(lv: Section, u: FloatArray) -> FloatArray:
    """Return y of the front of the rib cage over ``u``; beside it, a line that goes on to the side and back."""
    ratio = np.clip(u / lv.a, 0, 0.97)
    beside = np.maximum(u - 0.97 * lv.a, 0)
    front: FloatArray = (lv.yc - lv.b * np.power(1 - ratio**2.3, 1 / 2.3) + 0.1 * beside).astype(np.float32)
    return front


def pectoral_floor(lv: Section, u: FloatArray) -> FloatArray:
    """Return y of the deep surface of the pectoralis major over ``u``."""
    front = cage_front(lv, u)
    flat = lv.yc - lv.b + 14 + 0.30 * np.maximum(u - 45, 0)
    floor: FloatArray = np.minimum(front - 2, flat).astype(np.float32)
    # Room for the pectoralis minor between the ribs and the major.
    room = (lv.minor[2] + 4) * np.exp(-(((u - lv.minor[0]) / (lv.minor[1] + 12)) ** 2))
    return np.asarray(floor - room, np.float32)


def scapular_line(lv: Section, u: FloatArray) -> FloatArray:
    """Return y of the front of the shoulder blade over ``u``."""
    line: FloatArray = (np.float32(scapular_height(lv, 60)) - np.float32(0.80) * (u - 60)).astype(np.float32)
    return line


def scapular_height(lv: Section, u: float) -> float:
    """Return y of the front of the shoulder blade at one ``u``."""
    return lv.yc + 0.9 * lv.b + 26 + 0.8 * lv.scapula - 0.80 * (u - 60)
