"""A classified node: the crops that the networks see, their probabilities and heatmaps, and the identity of the model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alnnode.records.arrays import FloatArray
    from alnnode.records.nodes import Node


# A Grad-CAM map shows something if its areas raised the probability of the network by at least this much.
LEAST_RAISED = 0.01


class Crop(StrEnum):
    """The two crops of the method: fixed-size and adjustable-square."""

    FSC = "fsc"
    ASC = "asc"


@dataclass(frozen=True, slots=True)
class CropGeometry:
    """A square crop of one slice: pure geometry, invertible.

    The crop's pixel (v, u) (row, column; integers at pixel centres) shows the voxel position
    ``(slice_index, top + v * step_row, left + u * step_column)``; when ``transposed`` (the patient lies on the side), it shows
    ``(slice_index, top + u * step_row, left + v * step_column)``.
    """

    kind: Crop
    slice_index: int
    top: float
    left: float
    step_row: float
    step_column: float
    size: int  # pixels along each side
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class CropPair:
    """The inputs of the two networks for one node.

    ``fsc`` and ``asc`` have shape (channels, size, size), float32, scaled by the crop settings of the bundle.
    """

    fsc: FloatArray
    asc: FloatArray
    fsc_geometry: CropGeometry
    asc_geometry: CropGeometry


@dataclass(frozen=True, slots=True)
class Prediction:
    """Probability of metastasis, 0 to 1, by the ensemble, and by each member."""

    probability: float
    members: dict[Crop, float]


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Grad-CAM of one member for one node: values 0 to 1, shape (size, size) in crop pixels; all 0 in an empty map."""

    crop: Crop
    values: FloatArray
    geometry: CropGeometry

    @property
    def empty(self) -> bool:
        """Whether no area of the crop raised the probability of the network by `LEAST_RAISED`."""
        return not self.values.any()

    @property
    def on_slice(self) -> FloatArray:
        """The values with the first axis along the rows of the slice and the second along its columns."""
        return self.values.T if self.geometry.transposed else self.values


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Threshold on the ensemble probability, with the sensitivity and specificity that were measured there, and the data set.

    Sensitivity and specificity are None for a threshold that the site set: they were not measured.
    """

    threshold: float
    sensitivity: Interval | None
    specificity: Interval | None
    data_set: str  # "held-out synthetic phantoms, n = 480 nodes"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Identity of the model, which every result object states.

    ``validated_on`` names the patients that the bundle was validated on, in the words of its manifest; empty without validation.
    """

    name: str
    version: str
    digest: str  # sha256 of the manifest, hex
    demonstration: bool
    training_data: str
    operating_point: OperatingPoint
    manufacturer: str = "alnnode"
    validated_on: str = ""

    @property
    def clinical(self) -> bool:
        """Whether reports may state a verdict: only for a bundle that was validated on patients."""
        return bool(self.validated_on) and not self.demonstration

    @property
    def kind(self) -> str:
        """The qualification that reports add to every probability."""
        if self.demonstration:
            return "demonstration model"
        return "research use only" if self.clinical else "model not validated on patients"

    @property
    def banner(self) -> str:
        """The notice on every capture and in every report."""
        if self.demonstration:
            return "DEMONSTRATION MODEL - SYNTHETIC TRAINING DATA - NOT FOR CLINICAL USE"
        return "RESEARCH USE ONLY"


@dataclass(frozen=True, slots=True)
class Finding:
    """A node with the probability of the ensemble and the heatmaps that explain it."""

    node: Node
    prediction: Prediction
    heatmaps: tuple[Heatmap, ...]
    crops: CropPair

    def suspicious(self, operating_point: OperatingPoint) -> bool:
        """Return whether the probability reaches the operating point."""
        return self.prediction.probability >= operating_point.threshold
