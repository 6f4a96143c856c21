"""Synthetic axillary CT with its truth: the training data, the demonstration and the test input of alnnode.

Nothing in it comes from a person. docs/phantom.md says what is modelled and where the figures come from.
"""

from alnnode.phantom.patient import Phantom, TruthNode, make_patient
from alnnode.phantom.settings import Arms, PhantomError, PhantomSettings, Phase, Position

__all__ = ["Arms", "Phantom", "PhantomError", "PhantomSettings", "Phase", "Position", "TruthNode", "make_patient"]
