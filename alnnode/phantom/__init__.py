"""Synthetic axillary CT with its truth: the training data, the demonstration and the test input of alnnode.

Nothing in it comes from a person. docs/phantom.md says what is modelled and where the figures come from.
"""

from alnnode.phantom.dicom import instance_uid, series_uid, write_series
from alnnode.phantom.patient import Phantom, TruthNode, make_patient
from alnnode.phantom.settings import Arms, PhantomError, PhantomSettings, Phase, Position, Surroundings
from alnnode.phantom.truth import make_cohort, patient_truth, write_masks, write_truth

__all__ = [
    "Arms",
    "Phantom",
    "PhantomError",
    "PhantomSettings",
    "Phase",
    "Position",
    "Surroundings",
    "TruthNode",
    "instance_uid",
    "make_cohort",
    "make_patient",
    "patient_truth",
    "series_uid",
    "write_masks",
    "write_series",
    "write_truth",
]
