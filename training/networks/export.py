"""Write the bundle that the node loads: fp16 safetensors, manifest, model card."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from safetensors.torch import save

import alnnode
from alnnode.errors import BundleError
from alnnode.model import bundle
from alnnode.model import manifest as manifests
from alnnode.records import Crop
from training.report.detection_report import table as detection_table
from training.report.model_card import LIMITS, LOCATING, card

if TYPE_CHECKING:
    from pathlib import Path

    from alnnode.imaging.crop import CropSettings
    from alnnode.model.manifest import Architecture
    from training.evaluate.bundle import Figures

CARD = "model-card.md"
DETECTOR = "detector.safetensors"
LOCATED = "## Figures with nodes that the detector found\n"
Weights = dict[str, torch.Tensor]
Detector = tuple[bytes, dict[str, Any]]  # safetensors bytes, settings


@dataclass(frozen=True, slots=True)
class Export:
    """What a bundle is made of.

    Attributes:
        prevalence: share of malignant nodes among those that the probabilities were fitted on, 0 to 1.
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
    figures: Figures
    test_set: str
    detector: Detector | None
    command: str
    provenance: dict[str, Any]


def write(export: Export, folder: Path) -> str:
    """Write the bundle and return its digest; what stood in ``folder`` of an earlier bundle is replaced."""
    files = {f"{crop.value}.safetensors": save(halved(weights)) for crop, weights in export.members.items()}
    if export.detector:
        files[DETECTOR] = export.detector[0]
    files[CARD] = card(export).encode()

    def entry(name: str) -> dict[str, str]:
        return {"file": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    figures = export.figures
    manifest = manifests.Manifest.model_validate(
        {
            "schema_version": manifests.SCHEMA_VERSION,
            "name": export.name,
            "version": export.version,
            "demonstration": export.demonstration,
            "training_data": export.training_data,
            "members": [
                {
                    "crop": c.value,
                    "architecture": export.architectures[c],
                    "output_stride": export.output_stride,
                    **entry(f"{c.value}.safetensors"),
                }
                for c in Crop
            ],
            "crops": asdict(export.crops),
            "rule": "mean",
            "temperature": export.temperature,
            "operating_point": {
                "threshold": figures.threshold,
                "sensitivity": asdict(figures.sensitivity),
                "specificity": asdict(figures.specificity),
                "data_set": export.test_set,
            },
            "detector": {**entry(DETECTOR), "settings": export.detector[1]} if export.detector else None,
            "model_card": entry(CARD),
            "provenance": export.provenance
            | {
                "figures": figures.as_dict(),
                "torch": torch.__version__,
                "monai": version("monai"),
                "alnnode": alnnode.__version__,
            },
        }
    )
    return _write(manifest, files, folder)


def attach(loaded: bundle.Bundle, detector: Detector, folder: Path, figures: dict[str, Any] | None = None) -> str:
    """Write the bundle again with this detector and return the new digest: each is trained on its own.

    ``figures`` are those of `training.report.detection_report.figures` with the "seed" of the phantoms; they go into the model card.
    """
    weights, settings = detector
    files = loaded.contents | {DETECTOR: weights}
    if loaded.manifest.demonstration:
        files[CARD] = re.sub(
            r"^\| locating \|.*$", f"| locating | {LOCATING} |", files[CARD].decode(), flags=re.MULTILINE
        ).encode()
    if figures is not None:
        files[CARD] = with_detection(files[CARD].decode(), figures).encode()
    entry = manifests.DetectorEntry(file=DETECTOR, sha256=hashlib.sha256(weights).hexdigest(), settings=settings)
    described = manifests.FileEntry(file=CARD, sha256=hashlib.sha256(files[CARD]).hexdigest())
    return _write(loaded.manifest.model_copy(update={"detector": entry, "model_card": described}), files, folder)


def declare_validated(loaded: bundle.Bundle, statement: str, folder: Path) -> str:
    """Write the bundle again with the statement on which patients it was validated, and return the new digest.

    Args:
        loaded: any bundle but a demonstration.
        statement: the patients and the result, one sentence: it is written into every report.
        folder: of the new bundle.

    Raises:
        BundleError: it is a demonstration bundle, or the statement is empty or longer than 400 characters.
    """
    described = loaded.manifest.model_dump() | {"validated_on_patients": statement}
    try:
        manifest = manifests.Manifest.model_validate(described)
    except ValidationError as error:
        raise BundleError(f"cannot declare the bundle validated: {error.errors(include_url=False)[0]['msg']}") from error
    return _write(manifest, loaded.contents, folder)


def with_detection(text: str, figures: dict[str, Any]) -> str:
    """Return a model card with the section on nodes that were found, in place of an older one."""
    before, _, rest = text.partition(LOCATED)
    if not rest:
        before, _, rest = text.partition(LIMITS)
    else:
        rest = rest.partition(LIMITS)[2]
    section = f"""{LOCATED}
{figures["volumes"]} phantoms of seed {figures["seed"]}, which was used for nothing else; {figures["nodes"]} nodes with a short axis of 5 mm or more. A node counts
as found when a mark shares a quarter of the union of both; any other mark, a second one on a node too, is a false positive. Intervals
come from a bootstrap over phantoms, of AUROCs from DeLong with clusters of phantoms, of parts from Wilson. Real axillae hold more that looks like a node than phantoms do.

{detection_table(figures)}

"""
    return f"{before}{section}{LIMITS}{rest}"


def _write(manifest: manifests.Manifest, files: dict[str, bytes], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / bundle.MANIFEST).write_bytes(manifests.dump(manifest))
    return bundle.load(folder).digest


def halved(weights: Weights) -> Weights:
    """Return the weights as fp16: what is shipped, and so what must be evaluated."""
    return {name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous() for name, tensor in weights.items()}
