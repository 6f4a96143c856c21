"""A bundle with random weights, for tests that need the form of a model and not its skill."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from alnnode.imaging.crop import CropSettings
from alnnode.model import bundle, network
from alnnode.model import manifest as manifests
from alnnode.records import Crop


def write_bundle(folder: Path, detector: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None) -> Path:
    """Write a small valid bundle; the same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    crops = CropSettings(pixels=64, windows=((40.0, 400.0),))
    files: dict[str, bytes] = {"model-card.md": b"# random weights, for tests\n"}
    for number, crop in enumerate(Crop):
        torch.manual_seed(number)
        weights = network.build(crops.channels, 16).state_dict()
        files[f"{crop.value}.safetensors"] = save(
            {name: t.half() if t.is_floating_point() else t for name, t in weights.items()}
        )
    if detector:
        files["detector.safetensors"] = save(detector[0])
    for name, data in files.items():
        (folder / name).write_bytes(data)

    def entry(name: str) -> dict[str, str]:
        return {"file": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    figure = {"value": 0.9, "low": 0.8, "high": 0.95}
    manifest = manifests.Manifest.model_validate(
        {
            "schema_version": 1,
            "name": "random",
            "version": "0",
            "demonstration": True,
            "training_data": "none: random weights",
            "members": [
                {"crop": c.value, "architecture": "densenet121", "output_stride": 16, **entry(f"{c.value}.safetensors")}
                for c in Crop
            ],
            "crops": {
                "pixels": crops.pixels,
                "fsc_mm": crops.fsc_mm,
                "asc_margin": crops.asc_margin,
                "asc_min_margin_mm": crops.asc_min_margin_mm,
                "windows": crops.windows,
            },
            "rule": "mean",
            "temperature": 1.0,
            "operating_point": {"threshold": 0.5, "sensitivity": figure, "specificity": figure, "data_set": "none"},
            "detector": {**entry("detector.safetensors"), "settings": detector[1]} if detector else None,
            "model_card": entry("model-card.md"),
            "provenance": {},
        }
    )
    (folder / bundle.MANIFEST).write_bytes(manifests.dump(manifest))
    return folder
