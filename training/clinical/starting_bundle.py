"""The bundle from whose networks a training on a hospital's own nodes starts, instead of random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alnnode.model import bundle as bundles
from alnnode.records import Crop
from training.clinical import bundle_patients, table_check

if TYPE_CHECKING:
    from pathlib import Path

    from alnnode.imaging.crop import CropSettings
    from alnnode.model.bundle import Bundle
    from training.clinical.table_check import Rows


@dataclass(frozen=True, slots=True)
class StartingBundle:
    """A bundle, and the folder that holds it."""

    loaded: Bundle
    folder: Path

    @property
    def name(self) -> str:
        """Name, version and digest, for the model card."""
        manifest = self.loaded.manifest
        return f"{manifest.name} {manifest.version} ({self.loaded.digest[:12]})"

    @property
    def families(self) -> tuple[str, ...]:
        """The families of its networks."""
        return tuple(dict.fromkeys(self.loaded.member(crop).architecture for crop in Crop))

    @property
    def crops(self) -> CropSettings:
        """How its networks see a node; the new networks see nodes in the same way."""
        return self.loaded.crop_settings

    def weights(self, family: str, crop: Crop) -> Path | None:
        """Return the file from which a network starts; None where the bundle has no network of this family under this crop."""
        member = self.loaded.member(crop)
        return self.folder / member.file if member.architecture == family else None


def load_starting_bundle(name: str, rows: Rows, table: str) -> StartingBundle:
    """Return the bundle of this name or folder.

    Raises:
        BundleError: it cannot be loaded.
        TableError: it was trained or selected on patients of the table, who could come into the test part.
    """
    folder = bundles.resolve(name)
    loaded = bundles.load(folder)
    table_check.refuse_problems(bundle_patients.known_patient_problems(rows, loaded, folder), table)
    return StartingBundle(loaded, folder)
