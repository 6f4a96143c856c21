"""Export both networks of a bundle as ONNX, check them against PyTorch, and write the settings that a program needs to use them."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from alnnode.errors import AlnnodeError
from alnnode.records import Crop
from training.networks import build

if TYPE_CHECKING:
    from pathlib import Path

    from alnnode.model.bundle import Bundle

OPSET: Final = 18
TOLERANCE: Final = 1e-3  # largest difference of a logit, both in float32
CHECKED: Final = 3  # crops on which both are compared


class OnnxError(AlnnodeError):
    """ONNX cannot be written, or its logits differ from those of PyTorch."""


def export_onnx(loaded: Bundle, folder: Path) -> str:
    """Write fsc.onnx, asc.onnx and bundle.json; return a line with the folder and the largest difference from PyTorch.

    Each network takes ``crops`` (N, channels, S, S), float32, as `alnnode.imaging.crop.sample` makes them, and returns ``logit`` (N, 1).

    Raises:
        OnnxError: packages are missing, or the logits of ONNX Runtime and PyTorch differ by more than `TOLERANCE`.
    """
    if any(find_spec(name) is None for name in ("onnxruntime", "onnxscript")):
        raise OnnxError("ONNX export needs more packages: pip install 'alnnode[onnx]'")
    folder.mkdir(parents=True, exist_ok=True)
    settings = loaded.crop_settings
    shape = (CHECKED, settings.channels, settings.pixels, settings.pixels)
    crops = torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))
    largest = 0.0
    for crop, model in build.networks_of_bundle(loaded).items():
        path = folder / f"{crop.value}.onnx"
        torch.onnx.export(
            model,
            (crops,),
            path,
            input_names=["crops"],
            output_names=["logit"],
            dynamic_shapes=({0: torch.export.Dim("nodes")},),
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
        largest = max(largest, max_logit_difference(path, model, crops))
    if largest > TOLERANCE:
        raise OnnxError(f"ONNX Runtime and PyTorch differ by {largest:.2g} in a logit: do not use these files, use the bundle")
    manifest = loaded.manifest
    settings_file = {
        "bundle": loaded.digest,
        "name": manifest.name,
        "notice": loaded.identity.banner,
        "crops": asdict(settings),
        "networks": {crop.value: f"{crop.value}.onnx" for crop in Crop},
        "probability": "mean over both networks of 1 / (1 + exp(-logit / temperature))",
        "temperature": manifest.temperature,
        "threshold": manifest.operating_point.threshold,
    }
    (folder / "bundle.json").write_text(json.dumps(settings_file, indent=2) + "\n", encoding="utf-8")
    return f"fsc.onnx and asc.onnx in {folder}; logits differ from those of PyTorch by at most {largest:.1g}"


@torch.inference_mode()
def max_logit_difference(path: Path, model: torch.nn.Module, crops: torch.Tensor) -> float:
    """Return the largest difference between the logits of both runtimes, for all crops in one batch and for the first crop alone."""
    import onnxruntime  # noqa: PLC0415 - an optional extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batches = (crops, crops[:1])
    return max(
        float(np.abs(session.run(["logit"], {"crops": batch.numpy()})[0] - model(batch).numpy()).max()) for batch in batches
    )
