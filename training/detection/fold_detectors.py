"""The detector with which each patient is evaluated: one that was not trained on this patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetensors.torch import load_file

from alnnode.errors import AlnnodeError
from alnnode.locate.detector import Detector, DetectorSettings
from training.detection.fold_names import file_without

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class FoldDetectors:
    """The detector for each case: that of the bundle, or the network that was trained without the patient.

    Attributes:
        shipped: the detector of the bundle; None with ``folds``.
        folds: folder of the networks that were each trained without some patients.
        settings: of the detector.
    """

    shipped: Detector | None
    folds: Path | None
    settings: DetectorSettings

    def for_case(self, case: str) -> Detector:
        """Return the detector for a case.

        Raises:
            AlnnodeError: the network that was trained without this patient is missing.
        """
        if self.folds is None:
            assert self.shipped is not None
            return self.shipped
        path = file_without(self.folds, case)
        if path is None:
            raise AlnnodeError(
                f"{self.folds} holds no network without-{case}: train it with `python -m training.detection train --leave-out 1`"
            )
        return Detector(load_file(path), self.settings)
