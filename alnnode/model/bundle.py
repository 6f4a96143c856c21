"""The model bundle: a folder with ``manifest.json`` and safetensors files, immutable, identified by its digest.

The digest is the sha256 of the manifest's bytes. The manifest holds the sha256 of every other file, so the digest covers all files.
No file is ever unpickled. This module does not import torch, so that a process without torch can check a bundle.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from alnnode.errors import BundleError
from alnnode.imaging.crop import CropSettings
from alnnode.model.manifest import Manifest
from alnnode.records import Crop, Interval, ModelIdentity, OperatingPoint

if TYPE_CHECKING:
    from alnnode.model.manifest import DetectorEntry, EnsembleMember, FileEntry

MANIFEST = "manifest.json"
PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".npy"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: every file had its digest when it was loaded."""

    folder: Path
    manifest: Manifest
    digest: str
    contents: dict[str, bytes]

    @property
    def identity(self) -> ModelIdentity:
        """The identity of the model, which every report states."""
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
        """The geometry and the windows of the crops."""
        return CropSettings(**self.manifest.crops.model_dump())

    @property
    def detector_settings(self) -> dict[str, Any]:
        """The settings of the detector.

        Raises:
            BundleError: the bundle has no detector.
        """
        return self._detector().settings

    def weights(self, name: str) -> bytes:
        """Return the safetensors file of "fsc", "asc" or "detector".

        Raises:
            BundleError: the bundle has no detector.
        """
        entry = self._detector() if name == "detector" else self.member(Crop(name))
        return self.contents[entry.file]

    def member(self, crop: Crop) -> EnsembleMember:
        """Return the manifest's entry of one ensemble member."""
        return next(member for member in self.manifest.members if member.crop is crop)

    def _detector(self) -> DetectorEntry:
        if self.manifest.detector is None:
            raise BundleError(f"the bundle {self.manifest.name} has no detector; export it with one")
        return self.manifest.detector


def resolve(name: str) -> Path:
    """Return the folder of a bundle: of the packaged bundle for "demo", else ``name`` as a path."""
    if name == "demo":
        return Path(str(resources.files("alnnode.model") / "demo"))
    return Path(name)


def digest(folder: Path) -> str:
    """Return the digest (sha256, hex) of a bundle without verifying its files.

    Raises:
        BundleError: the manifest cannot be read.
    """
    return hashlib.sha256(_read(folder, MANIFEST)).hexdigest()


def load(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: a file is missing, altered, unknown or pickled, or the manifest has another schema version.
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
    _reject_unknown_files(folder, {MANIFEST, *(entry.file for entry in entries)})
    contents = {entry.file: _verified(folder, entry) for entry in entries}
    return Bundle(folder, manifest, hashlib.sha256(raw).hexdigest(), contents)


def _verified(folder: Path, entry: FileEntry) -> bytes:
    data = _read(folder, entry.file)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(
            f"{folder / entry.file} was altered: its sha256 is not the manifest's; restore or export the bundle again"
        )
    return data


def _reject_unknown_files(folder: Path, known: set[str]) -> None:
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
