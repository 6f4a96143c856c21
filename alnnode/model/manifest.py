"""The manifest of a model bundle, ``manifest.json``: its schema and its byte form."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from alnnode.records import Crop  # noqa: TC001 - pydantic evaluates it

SCHEMA_VERSION: Literal[1] = 1
Architecture = Literal["resnet18", "resnet50", "densenet121", "densenet169", "efficientnet-b0", "efficientnet-b3"]
FileName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+\.(safetensors|md)$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class ManifestModel(BaseModel):
    """Base of all parts of the manifest: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(ManifestModel):
    """A file of the bundle, and its sha256 digest."""

    file: FileName
    sha256: Sha256


class EnsembleMember(FileEntry):
    """One network of the ensemble."""

    crop: Crop
    architecture: Architecture
    output_stride: Literal[8, 16, 32]  # crop pixels per cell of the last feature map


class CropEntry(ManifestModel):
    """`alnnode.imaging.crop.CropSettings` in the manifest."""

    pixels: Annotated[int, Field(ge=32, le=512)]
    fsc_mm: Annotated[float, Field(gt=0, le=200)]
    asc_margin: Annotated[float, Field(ge=0, le=4)]
    asc_min_margin_mm: Annotated[float, Field(ge=0, le=50)]
    windows: Annotated[tuple[tuple[float, float], ...], Field(min_length=1, max_length=8)]
    # Bundles of earlier versions have none of these keys: one slice, and no channel of the blood pool.
    slices: Literal[1, 3, 5] = 1
    slice_step_mm: Annotated[float, Field(gt=0, le=20)] = 3.0
    blood_pool: bool = False


class MeasuredShare(ManifestModel):
    """A proportion with its 95 % confidence interval."""

    value: Share
    low: Share
    high: Share


class OperatingPointEntry(ManifestModel):
    """The operating point, and the sensitivity and specificity that were measured there."""

    threshold: Annotated[float, Field(gt=0, lt=1)]
    sensitivity: MeasuredShare
    specificity: MeasuredShare
    data_set: str


class DetectorEntry(FileEntry):
    """The detector; `alnnode.locate.detector` reads ``settings``."""

    settings: dict[str, Any]


class Manifest(ManifestModel):
    """``manifest.json``."""

    schema_version: Literal[1]
    name: str
    version: str
    demonstration: bool
    training_data: str
    members: Annotated[tuple[EnsembleMember, ...], Field(min_length=2, max_length=2)]
    crops: CropEntry
    rule: Literal["mean"]
    temperature: Annotated[float, Field(gt=0, le=100)]
    operating_point: OperatingPointEntry
    detector: DetectorEntry | None
    model_card: FileEntry
    provenance: dict[str, Any]  # seeds, library versions, reference results: for audits; no code reads it
    # The patients that the bundle was validated on, in words. Without it, no report states a verdict.
    validated_on_patients: Annotated[str, Field(min_length=1, max_length=400)] | None = None

    @model_validator(mode="after")
    def _demonstration_is_not_validated(self) -> Self:
        if self.demonstration and self.validated_on_patients is not None:
            raise ValueError("a demonstration bundle cannot say validated_on_patients")
        return self


def dump(manifest: Manifest) -> bytes:
    """Return the canonical byte form of a manifest; keys that earlier versions did not have are left out at their defaults."""
    written = manifest.model_dump(mode="json")
    if manifest.validated_on_patients is None:
        del written["validated_on_patients"]
    for key in ("slices", "slice_step_mm", "blood_pool"):
        if written["crops"][key] == CropEntry.model_fields[key].default:
            del written["crops"][key]
    return (json.dumps(written, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
