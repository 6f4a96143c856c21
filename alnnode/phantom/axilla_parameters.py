"""Parameters of the axillae in phantoms with `Surroundings.AXILLA`, sampled from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.records import Side

if TYPE_CHECKING:
    from alnnode.phantom.patient_parameters import PatientParameters


@dataclass(frozen=True, slots=True)
class AxillaParameters:
    """Properties of one patient's axillae that `PatientParameters` does not contain.

    Attributes:
        bulk: size of the shoulder muscles, 1 = mean.
        strands: density of strands and septa, 0.45 to 1.
        tail: size of the axillary tail of the breast, 0 = none.
        clefts: width of the fat between muscles, mm.
        pit: depth of the armpit, mm.
        side: fat at the side of the chest, mm beyond `PatientParameters.fat`.
        port: the side of an implanted port, if the patient has one.
        clips: the side of surgical clips, if the patient has any.
        phase: offset into the texture that places the strands.
    """

    bulk: float
    strands: float
    tail: float
    clefts: float
    pit: float
    side: float
    port: Side | None
    clips: Side | None
    phase: int


def sample_axilla(rng: np.random.Generator, patient: PatientParameters) -> AxillaParameters:
    """Sample the axillae of one patient."""
    return AxillaParameters(
        bulk=float(np.clip(rng.lognormal(0.0, 0.16), 0.75, 1.4)) * float(np.clip(patient.muscle, 0.8, 1.2)),
        strands=0.45 + 0.55 * float(rng.beta(1.8, 1.8)),
        tail=float(rng.uniform(0.4, 1.0)) if patient.breast > 12 and rng.random() < 0.6 else 0.0,
        clefts=float(rng.uniform(0.6, 2.2)),
        pit=float(rng.uniform(0, 16)),
        side=float(rng.uniform(2, 16)),
        port=_sample_side(rng, 0.12),
        clips=_sample_side(rng, 0.15),
        phase=int(rng.integers(64)),
    )


def _sample_side(rng: np.random.Generator, share: float) -> Side | None:
    """Return a random side in the given share of patients, else None."""
    side = Side.LEFT if rng.random() < 0.5 else Side.RIGHT
    return side if rng.random() < share else None
