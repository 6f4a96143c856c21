"""Synthetic axillary CT with its truth, for training, demonstration and tests.

A phantom contains no data of a patient. docs/phantom.md describes the model and the sources of its values.
"""

from alnnode.phantom.dicom import instance_uid, series_uid, write_series
from alnnode.phantom.patient import Phantom, make_patient
from alnnode.phantom.settings import Arms, PhantomError, PhantomSettings, Phase, Position, Surroundings
from alnnode.phantom.truth import CohortSettings, make_cohort, patient_truth, write_masks, write_truth
from alnnode.phantom.truth_node import TruthNode

__all__ = [
    "Arms",
    "CohortSettings",
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
