"""Properties of lymph nodes, sampled before anything is drawn.

The distributions follow publications on benign and metastatic axillary nodes (docs/phantom.md names the sources). They overlap
deliberately, so that no single property separates the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.settings import Phase

if TYPE_CHECKING:
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray

_ATYPICAL = 0.03  # share of nodes with the properties of the other class: early metastases and reactive nodes


@dataclass(frozen=True, slots=True)
class NodePlan:
    """The properties of one node; lengths in mm, attenuation in HU without noise.

    Attributes:
        malignant: the class of the node.
        semi: long, middle and short semi-axis.
        hilum: whether the node has a fatty hilum.
        cortex: thickness of the cortex.
        eccentric: eccentricity of the cortex: 0 = uniform thickness, 1 = all of it on one side.
        lobulation: amplitude of the bumps of the surface, as a share of the radius.
        spiculation: length of the spikes, 0 = none.
        stranding: density of the perinodal fat, 0 to 1.
        cortex_hu: mean attenuation of the cortex.
        mottle: standard deviation of the attenuation within the cortex.
        seed: determines bumps, spikes and strands.
        fatty: whether fat replaces the node except for a rim of thickness ``cortex``.
        opening: half angle (rad) of the gap in the rim of a fatty node: 0 = a closed ring, otherwise C-shaped.
    """

    malignant: bool
    semi: tuple[float, float, float]
    hilum: bool
    cortex: float
    eccentric: float
    lobulation: float
    spiculation: float
    stranding: float
    cortex_hu: float
    mottle: float
    seed: int
    fatty: bool = False
    opening: float = 0.0


def plan_fatty_node(rng: np.random.Generator, patient: PatientParameters) -> NodePlan:
    """Sample a benign node that is replaced by fat except for its rim.

    The rim is 0.8 to 2 mm thick, closed or C-shaped; the short axis is 6 to 16 mm long.
    """
    short = float(np.clip(rng.lognormal(np.log(9.0), 0.28), 6.0, 16.0))
    ratio = float(np.clip(rng.normal(1.6, 0.3), 1.05, 2.4))
    enhancement = {Phase.NONE: 0.0, Phase.ARTERIAL: 18.0, Phase.VENOUS: 28.0}[patient.phase]
    return NodePlan(
        malignant=False,
        semi=(short * ratio / 2, short * (1 + (ratio - 1) * float(rng.uniform(0.2, 0.9))) / 2, short / 2),
        hilum=True,
        cortex=float(rng.uniform(0.8, 2.0)),
        eccentric=float(rng.uniform(0, 0.8)),
        lobulation=abs(float(rng.normal(0.035, 0.03))),
        spiculation=0.0,
        stranding=float(rng.uniform(0.2, 0.6)) if rng.random() < 0.10 else 0.0,
        cortex_hu=float(rng.normal(36, 9)) + enhancement,
        mottle=abs(float(rng.normal(4, 2))),
        seed=int(rng.integers(2**31)),
        fatty=True,
        opening=0.0 if rng.random() < 0.40 else float(rng.uniform(0.6, 1.8)),
    )


def plan_node(rng: np.random.Generator, malignant: bool, patient: PatientParameters) -> NodePlan:
    """Sample a node of one class without fatty replacement."""
    malignant_look = malignant != (rng.random() < _ATYPICAL)  # the class whose distributions apply
    short = float(
        np.clip(
            rng.lognormal(np.log(10.2 if malignant_look else 6.4), 0.40 if malignant_look else 0.28),
            4.0,
            25.0 if malignant_look else 14.0,
        )
    )
    ratio = float(np.clip(rng.normal(1.30 if malignant_look else 1.75, 0.20 if malignant_look else 0.30), 1.05, 2.6))
    hilum = bool(rng.random() < (0.43 if malignant_look else 0.80))
    thin = float(rng.lognormal(np.log(4.0 if malignant_look else 1.5), 0.40))
    if short < 5.0 and malignant_look:
        hilum = hilum and bool(rng.random() < 0.6)  # a small node has no room for cortex and hilum
    thin = min(thin, 0.36 * short)
    enhancement = {Phase.NONE: (0.0, 0.0), Phase.ARTERIAL: (22.0, 30.0), Phase.VENOUS: (34.0, 42.0)}[patient.phase][
        int(malignant_look)
    ]
    return NodePlan(
        malignant=malignant,
        semi=(short * ratio / 2, short * (1 + (ratio - 1) * float(rng.uniform(0.2, 0.9))) / 2, short / 2),
        hilum=hilum,
        cortex=thin if hilum else short,
        eccentric=float(np.clip(rng.normal(0.45 if malignant_look else 0.12, 0.22), 0, 1)),
        lobulation=abs(float(rng.normal(0.10 if malignant_look else 0.035, 0.03))),
        spiculation=float(rng.uniform(0.4, 1.0)) if rng.random() < (0.48 if malignant_look else 0.05) else 0.0,
        stranding=float(rng.uniform(0.25, 1.0)) if rng.random() < (0.52 if malignant_look else 0.10) else 0.0,
        cortex_hu=float(rng.normal(49 if malignant_look else 35, 8.5))
        + enhancement
        + float(rng.normal(0, 6 if enhancement else 0)),
        mottle=abs(float(rng.normal(7 if malignant_look else 4, 3))),
        seed=int(rng.integers(2**31)),
    )


def sample_orientation(rng: np.random.Generator) -> FloatArray:
    """Return a random rotation (3, 3): its rows are the node's long, middle and short axis in patient coordinates."""
    turn, lean, roll = rng.uniform(0, np.pi), rng.normal(0, 0.35), rng.normal(0, 0.35)
    long_axis = np.array([np.cos(turn) * np.cos(lean), np.sin(turn) * np.cos(lean), np.sin(lean)])
    up = np.array([0.0, 0.0, 1.0])
    short_axis = np.cross(long_axis, up)
    short_axis /= np.linalg.norm(short_axis)
    middle = np.cross(short_axis, long_axis)
    short_rolled = short_axis * np.cos(roll) + middle * np.sin(roll)
    rotation: FloatArray = np.stack([long_axis, np.cross(short_rolled, long_axis), short_rolled]).astype(np.float32)
    return rotation
