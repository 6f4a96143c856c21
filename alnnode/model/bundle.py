"""The model bundle: one folder with ``manifest.json`` and safetensors files, immutable, named by its digest.

The digest is the sha256 of the manifest's bytes, and the manifest holds the sha256 of every other file, so it covers all of them.
Nothing here is ever unpickled. This module does not import torch, so that a digest can be checked without it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alnnode.errors import BundleError
from alnnode.imaging.crop import CropSettings
from alnnode.records import Crop, Interval, ModelIdentity, OperatingPoint

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION: Literal[1] = 1
Architecture = Literal["resnet18", "resnet50", "densenet121", "densenet169", "efficientnet-b0", "efficientnet-b3"]
MANIFEST = "manifest.json"
PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".npy"}
FileName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+\.(safetensors|md)$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(Part):
    """A file of the bundle and the digest it must have."""

    file: FileName
    sha256: Sha256


class Member(FileEntry):
    """One network of the ensemble."""

    crop: Crop
    architecture: Architecture
    output_stride: Literal[8, 16, 32]  # crop pixels per cell of the last feature map


class Crops(Part):
    """`CropSettings` as written."""

    pixels: Annotated[int, Field(ge=32, le=512)]
    fsc_mm: Annotated[float, Field(gt=0, le=200)]
    asc_margin: Annotated[float, Field(ge=0, le=4)]
    asc_min_margin_mm: Annotated[float, Field(ge=0, le=50)]
    windows: Annotated[tuple[tuple[float, float], ...], Field(min_length=1, max_length=8)]


class Figure(Part):
    """A figure with its 95 % interval."""

    value: Share
    low: Share
    high: Share


class Point(Part):
    """The operating point and what it was measured to give."""

    threshold: Annotated[float, Field(gt=0, lt=1)]
    sensitivity: Figure
    specificity: Figure
    data_set: str


class DetectorEntry(FileEntry):
    """The candidate scorer; ``settings`` is read by `alnnode.locate.detector`."""

    settings: dict[str, Any]


class Manifest(Part):
    """``manifest.json``."""

    schema_version: Literal[1]
    name: str
    version: str
    demonstration: bool
    training_data: str
    members: Annotated[tuple[Member, ...], Field(min_length=2, max_length=2)]
    crops: Crops
    rule: Literal["mean"]
    temperature: Annotated[float, Field(gt=0, le=100)]
    operating_point: Point
    detector: DetectorEntry | None
    model_card: FileEntry
    provenance: dict[str, Any]  # seeds, library versions, reference figures: for people and audits, read by no code
    # On which patients the bundle was validated, in words; without it no result is headed by a verdict.
    validated_on_patients: Annotated[str, Field(min_length=1, max_length=400)] | None = None

    @model_validator(mode="after")
    def _a_demonstration_is_validated_on_nobody(self) -> Self:
        if self.demonstration and self.validated_on_patients is not None:
            raise ValueError("a demonstration bundle cannot say validated_on_patients")
        return self


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: every file had its digest when it was loaded."""

    folder: Path
    manifest: Manifest
    digest: str
    contents: dict[str, bytes]

    @property
    def identity(self) -> ModelIdentity:
        """What reports say of the model."""
        written, point = self.manifest, self.manifest.operating_point
        return ModelIdentity(
            name=written.name,
            version=written.version,
            digest=self.digest,
            demonstration=written.demonstration,
            training_data=written.training_data,
            operating_point=OperatingPoint(
                point.threshold,
                Interval(point.sensitivity.value, point.sensitivity.low, point.sensitivity.high),
                Interval(point.specificity.value, point.specificity.low, point.specificity.high),
                point.data_set,
            ),
            validated_on=written.validated_on_patients or "",
        )

    @property
    def crop_settings(self) -> CropSettings:
        """How crops are taken."""
        return CropSettings(**self.manifest.crops.model_dump())

    @property
    def detector_settings(self) -> dict[str, Any]:
        """The settings the detector was trained with; BundleError when the bundle has none."""
        return self._detector().settings

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Return the weights of "fsc", "asc" or "detector".

        Raises:
            BundleError: the bundle has no such part, or its file is not safetensors.
        """
        from safetensors import SafetensorError  # noqa: PLC0415 - only a worker has torch
        from safetensors.torch import load as parse  # noqa: PLC0415

        entry = self._detector() if name == "detector" else self.member(Crop(name))
        try:
            tensors: dict[str, torch.Tensor] = parse(self.contents[entry.file])
        except SafetensorError as error:
            raise BundleError(f"{entry.file} is not a safetensors file: {error}; export the bundle again") from error
        return tensors

    def member(self, crop: Crop) -> Member:
        """Return the manifest's entry of one ensemble member."""
        return next(member for member in self.manifest.members if member.crop is crop)

    def _detector(self) -> DetectorEntry:
        if self.manifest.detector is None:
            raise BundleError(f"the bundle {self.manifest.name} has no detector; export it with one")
        return self.manifest.detector


def resolve(name: str) -> Path:
    """Return the folder of a bundle: "demo" is the one that comes with the package, anything else a path."""
    if name == "demo":
        return Path(str(resources.files("alnnode.model") / "demo"))
    return Path(name)


def digest(folder: Path) -> str:
    """Return the digest (sha256, hex) of a bundle without verifying that its files are what the manifest says.

    Raises:
        BundleError: the manifest cannot be read.
    """
    return hashlib.sha256(_read(folder, MANIFEST)).hexdigest()


def load(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: a file is missing, altered, unknown or pickled, or the manifest is of another version; says what to do.
    """
    raw = _read(folder, MANIFEST)
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise BundleError(
            f"{folder / MANIFEST}: {where}: {first['msg']}; export the bundle with this version of alnnode"
        ) from error
    if {member.crop for member in manifest.members} != set(Crop):
        raise BundleError(f"{folder / MANIFEST}: members must be one fsc and one asc network")
    entries = [*manifest.members, manifest.model_card, *([manifest.detector] if manifest.detector else [])]
    _refuse_strangers(folder, {MANIFEST, *(entry.file for entry in entries)})
    contents = {entry.file: _verified(folder, entry) for entry in entries}
    return Bundle(folder, manifest, hashlib.sha256(raw).hexdigest(), contents)


def dump(manifest: Manifest) -> bytes:
    """Return the manifest's one and only byte form. What no validation is said of has no line for it, as before there was such a line."""
    written = manifest.model_dump(mode="json")
    if manifest.validated_on_patients is None:
        del written["validated_on_patients"]
    return (json.dumps(written, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _verified(folder: Path, entry: FileEntry) -> bytes:
    data = _read(folder, entry.file)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(
            f"{folder / entry.file} was altered: its sha256 is not the manifest's; restore or export the bundle again"
        )
    return data


def _refuse_strangers(folder: Path, known: set[str]) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLES:
            raise BundleError(
                f"{path.name}: a bundle never holds pickled weights, which can run code; export it as safetensors"
            )
        if path.name not in known and not path.name.startswith(("__", ".")):
            raise BundleError(f"{path.name} is not in the manifest; remove it from {folder}")


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder / name}: cannot be read ({error.strerror}); check [analysis] bundle") from error
