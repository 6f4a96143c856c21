"""The contents of a bundle: everything that `training.report.bundle_export` needs in order to write one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alnnode.imaging.crop import CropSettings
    from alnnode.model.bundle import Bundle
    from alnnode.model.manifest import Architecture
    from alnnode.records import Crop
    from training.evaluate.bundle_metrics import BundleMetrics
    from training.networks.inference import Weights

DETECTOR_FILE = "detector.safetensors"
DetectorFiles = tuple[bytes, dict[str, Any]]  # safetensors bytes, settings


@dataclass(frozen=True, slots=True)
class BundleContents:
    """The contents of a bundle.

    Attributes:
        demonstration: the bundle was trained on phantoms, so it must not be declared validated on patients.
        prevalence: share of malignant nodes among those that the probabilities were fitted on, 0 to 1.
        figures: metrics on the test set at the operating point.
        notes: sentences for the model card on how sure the operating point is.
        command: the command that made the bundle, for the model card.
    """

    name: str
    version: str
    demonstration: bool
    training_data: str
    crops: CropSettings
    output_stride: int
    architectures: dict[Crop, Architecture]
    members: dict[Crop, Weights]
    temperature: float
    prevalence: float
    figures: BundleMetrics
    test_set: str
    detector: DetectorFiles | None
    command: str
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()


def detector_of(loaded: Bundle) -> DetectorFiles:
    """Return the detector of a bundle, for another bundle."""
    return loaded.contents[DETECTOR_FILE], loaded.detector_settings
