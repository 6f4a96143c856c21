"""Both networks of a bundle as ONNX, each checked against PyTorch, with what else a program needs to use them."""

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
TOLERANCE: Final = 1e-3  # of a logit, float32 on both sides
CHECKED: Final = 3  # crops


class OnnxError(AlnnodeError):
    """ONNX cannot be written, or says something else than PyTorch."""


def write(loaded: Bundle, folder: Path) -> str:
    """Write fsc.onnx, asc.onnx and bundle.json; return what was written and how far both runtimes differ.

    Each network takes ``crops`` (N, channels, S, S), float32, as `alnnode.imaging.crop.sample` makes them, and gives ``logit`` (N, 1).

    Raises:
        OnnxError: the packages are missing, or ONNX Runtime gives other logits than PyTorch.
    """
    if any(find_spec(name) is None for name in ("onnxruntime", "onnxscript")):
        raise OnnxError("ONNX needs more packages: pip install 'alnnode[onnx]'")
    folder.mkdir(parents=True, exist_ok=True)
    settings = loaded.crop_settings
    shape = (CHECKED, len(settings.windows), settings.pixels, settings.pixels)
    crops = torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))
    far = 0.0
    for crop, model in build.of_bundle(loaded).items():
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
        far = max(far, difference(path, model, crops))
    if far > TOLERANCE:
        raise OnnxError(f"ONNX Runtime and PyTorch differ by {far:.2g} in a logit; use the bundle itself")
    manifest = loaded.manifest
    told = {
        "bundle": loaded.digest,
        "name": manifest.name,
        "notice": loaded.identity.banner,
        "crops": asdict(settings),
        "networks": {crop.value: f"{crop.value}.onnx" for crop in Crop},
        "probability": "mean over both networks of 1 / (1 + exp(-logit / temperature))",
        "temperature": manifest.temperature,
        "threshold": manifest.operating_point.threshold,
    }
    (folder / "bundle.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return f"fsc.onnx and asc.onnx in {folder}; logits differ from PyTorch's by {far:.1g} at most"


@torch.inference_mode()
def difference(path: Path, model: torch.nn.Module, crops: torch.Tensor) -> float:
    """Return how far the logits of both runtimes are apart at most, for all crops at once and for the first alone."""
    import onnxruntime  # noqa: PLC0415 - an optional extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batches = (crops, crops[:1])
    return max(
        float(np.abs(session.run(["logit"], {"crops": batch.numpy()})[0] - model(batch).numpy()).max()) for batch in batches
    )
