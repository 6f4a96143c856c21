"""Write the bundle that the node loads: fp16 safetensors, manifest and model card."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
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
from training.fit.bundle_contents import DETECTOR_FILE
from training.networks.inference import half_precision
from training.report.detection_report import detection_table
from training.report.model_card import LIMITS, LOCATING, card

if TYPE_CHECKING:
    from pathlib import Path

    from training.fit.bundle_contents import BundleContents, DetectorFiles

CARD = "model-card.md"
LOCATED = "## Figures with nodes that the detector found\n"


def write_bundle(contents: BundleContents, folder: Path, detection: dict[str, Any] | None = None) -> str:
    """Write the bundle and return its digest; an earlier bundle in ``folder`` is replaced.

    Args:
        contents: of the bundle.
        folder: of the bundle.
        detection: metrics of the detector for the model card, as in `attach_detector`; None for a card without them.
    """
    files = {f"{crop.value}.safetensors": save(half_precision(weights)) for crop, weights in contents.members.items()}
    if contents.detector:
        files[DETECTOR_FILE] = contents.detector[0]
    text = card(contents)
    files[CARD] = (text if detection is None else card_with_detection(text, detection)).encode()
    return _write(_manifest(contents, files), files, folder)


def _manifest(contents: BundleContents, files: dict[str, bytes]) -> manifests.Manifest:
    def entry(name: str) -> dict[str, str]:
        return {"file": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    figures = contents.figures
    members = [
        {
            "crop": crop.value,
            "architecture": contents.architectures[crop],
            "output_stride": contents.output_stride,
            **entry(f"{crop.value}.safetensors"),
        }
        for crop in Crop
    ]
    return manifests.Manifest.model_validate(
        {
            "schema_version": manifests.SCHEMA_VERSION,
            "name": contents.name,
            "version": contents.version,
            "demonstration": contents.demonstration,
            "training_data": contents.training_data,
            "members": members,
            "crops": asdict(contents.crops),
            "rule": "mean",
            "temperature": contents.temperature,
            "operating_point": {
                "threshold": figures.threshold,
                "sensitivity": asdict(figures.sensitivity),
                "specificity": asdict(figures.specificity),
                "data_set": contents.test_set,
            },
            "detector": {**entry(DETECTOR_FILE), "settings": contents.detector[1]} if contents.detector else None,
            "model_card": entry(CARD),
            "provenance": contents.provenance
            | {
                "figures": figures.as_dict(),
                "torch": torch.__version__,
                "monai": version("monai"),
                "alnnode": alnnode.__version__,
            },
        }
    )


def attach_detector(loaded: bundle.Bundle, detector: DetectorFiles, folder: Path, figures: dict[str, Any] | None = None) -> str:
    """Write a copy of the bundle with another detector and return the new digest; the classifiers do not change.

    Args:
        loaded: the bundle.
        detector: weights and settings of the detector.
        folder: of the new bundle.
        figures: of `training.report.detection_report.detection_metrics` with the "seed" of the phantoms, for the model card.
    """
    weights, settings = detector
    files = loaded.contents | {DETECTOR_FILE: weights}
    if loaded.manifest.demonstration:
        files[CARD] = re.sub(
            r"^\| locating \|.*$", f"| locating | {LOCATING} |", files[CARD].decode(), flags=re.MULTILINE
        ).encode()
    if figures is not None:
        files[CARD] = card_with_detection(files[CARD].decode(), figures).encode()
    entry = manifests.DetectorEntry(file=DETECTOR_FILE, sha256=hashlib.sha256(weights).hexdigest(), settings=settings)
    described = manifests.FileEntry(file=CARD, sha256=hashlib.sha256(files[CARD]).hexdigest())
    return _write(loaded.manifest.model_copy(update={"detector": entry, "model_card": described}), files, folder)


def declare_validated(loaded: bundle.Bundle, statement: str, folder: Path) -> str:
    """Write a copy of the bundle with a statement on which patients it was validated, and return the new digest.

    Args:
        loaded: any bundle but a demonstration.
        statement: the patients and the result in one sentence, which every report quotes.
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


def card_with_detection(text: str, figures: dict[str, Any]) -> str:
    """Return a model card with the section on detected nodes; an older section is replaced."""
    before, _, rest = text.partition(LOCATED)
    if not rest:
        before, _, rest = text.partition(LIMITS)
    else:
        rest = rest.partition(LIMITS)[2]
    section = f"""{LOCATED}
{figures["volumes"]} phantoms of seed {figures["seed"]} with {figures["surroundings"]} surroundings, on which nothing was trained; {figures["nodes"]} nodes with a short axis of 5 mm or more. A node counts
as found when a mark shares a quarter of the union of both; any other mark, a second one on a node too, is a false positive. Intervals
come from a bootstrap over phantoms, of AUROCs from DeLong with clusters of phantoms, of parts from Wilson. {_beyond(figures["surroundings"])}

{detection_table(figures)}

"""
    return f"{before}{section}{LIMITS}{rest}"


def _beyond(surroundings: str) -> str:
    """Return what the figures of located nodes do not show."""
    said = "Real axillae hold more that looks like a node than phantoms do."
    if surroundings == "plain":
        said += " On phantoms with the surroundings of patients the detector finds far fewer nodes (docs/detection.md)."
    return said


def _write(manifest: manifests.Manifest, files: dict[str, bytes], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / bundle.MANIFEST).write_bytes(manifests.dump(manifest))
    return bundle.load(folder).digest
