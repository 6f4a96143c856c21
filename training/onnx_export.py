"""Both networks of a bundle as ONNX, each checked against PyTorch, with what else a program needs to use them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from alnnode.errors import AlnnodeError
from alnnode.records import Crop
from training import networks

if TYPE_CHECKING:
    from pathlib import Path

    from alnnode.model.bundle import Bundle

OPSET: Final = 18
TOLERANCE: Final = 1e-3  # of a logit, float32 on both sides
CHECKED: Final = 3  # crops


class OnnxError(AlnnodeError):
    """ONNX cannot be written, or says something else than PyTorch."""


def write(loaded: Bundle, folder: Path, tolerance: float = TOLERANCE) -> str:
    """Write fsc.onnx, asc.onnx and bundle.json; return what was written and how far both runtimes differ.

    Each network takes ``crops`` (N, channels, S, S), float32, as `alnnode.imaging.crop.sample` makes them, and gives ``logit`` (N, 1).

    Raises:
        OnnxError: the packages are missing, or ONNX Runtime gives other logits than PyTorch.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - an optional extra
        import onnxscript  # noqa: F401, PLC0415 - torch.onnx needs it
    except ImportError as error:
        raise OnnxError("ONNX needs more packages: pip install 'alnnode[onnx]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    settings = loaded.crop_settings
    shape = (CHECKED, len(settings.windows), settings.pixels, settings.pixels)
    crops = torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))
    far = 0.0
    for crop, model in networks.of_bundle(loaded).items():
        path = folder / f"{crop.value}.onnx"
        with torch.inference_mode():
            expected = model(crops).numpy()
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
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = [session.run(["logit"], {"crops": part})[0] for part in (crops.numpy(), crops.numpy()[:1])]
        far = max(far, float(np.abs(found[0] - expected).max()), float(np.abs(found[1] - expected[:1]).max()))
    if far > tolerance:
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
