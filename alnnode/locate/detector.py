"""A small 3D network that says which candidates are lymph nodes, and which reading of a node is the good one.

It sees a patch of CT around the candidate, the candidate's mask, and the figures of `shape.Shape`. Trained by
``training.detector``; the weights travel in the bundle as ``detector.safetensors``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from alnnode.errors import BundleError
from alnnode.locate.level import LevelModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from alnnode.locate.candidates import Candidate
    from alnnode.records import FloatArray

FEATURES = 7
BATCH = 32  # fixed: the result of a candidate must not depend on how many others there are


class HoldsDetector(Protocol):
    """What `Detector.from_bundle` needs of a model bundle."""

    @property
    def detector_settings(self) -> Mapping[str, Any] | None:
        """The manifest's "detector" settings, None when the bundle has no detector."""

    def tensors(self, name: str) -> Mapping[str, torch.Tensor]:
        """Weights by file stem."""


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """How the scorer looks, as written in the manifest.

    Attributes:
        patch: edge of the cubic patch, grid points of 1 mm.
        window_low, window_high: HU shown as 0 and 1.
        threshold: operating point on the score, chosen on validation phantoms.
        channels: of the three stages.
        levels: tells the axillary level from the place; None: no level is told.
    """

    patch: int = 32
    window_low: float = -160.0
    window_high: float = 240.0
    threshold: float = 0.5
    channels: tuple[int, int, int] = (12, 24, 40)
    levels: LevelModel | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectorSettings:
        """Read from a manifest.

        Raises:
            BundleError: a key is unknown or a value is of the wrong kind.
        """
        try:
            chosen = dict(values)
            if "channels" in chosen:
                a, b, c = (int(n) for n in chosen["channels"])
                chosen["channels"] = (a, b, c)
            if chosen.get("levels") is not None:
                chosen["levels"] = LevelModel.from_dict(chosen["levels"])
            settings = cls(**chosen)
        except (TypeError, ValueError) as error:
            raise BundleError(f"the bundle's detector settings cannot be used ({error}); fetch the bundle again") from error
        if not (8 <= settings.patch <= 64 and settings.window_low < settings.window_high and 0 <= settings.threshold <= 1):
            raise BundleError("the bundle's detector settings are out of range; fetch the bundle again")
        return settings

    def to_dict(self) -> dict[str, Any]:
        """As JSON for a manifest."""
        return {**asdict(self), "channels": list(self.channels)}


class ScoreNet(nn.Module):
    """Three strided stages, global mean and maximum, then the shape figures and two dense layers: logit of "node"."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        a, b, c = channels
        self.body = nn.Sequential(
            nn.Conv3d(2, a, 3, stride=2, padding=1),
            nn.BatchNorm3d(a),
            nn.ReLU(inplace=True),
            nn.Conv3d(a, b, 3, stride=2, padding=1),
            nn.BatchNorm3d(b),
            nn.ReLU(inplace=True),
            nn.Conv3d(b, c, 3, padding=1),
            nn.BatchNorm3d(c),
            nn.ReLU(inplace=True),
            nn.MaxPool3d(2),
            nn.Conv3d(c, c, 3, padding=1),
            nn.BatchNorm3d(c),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Sequential(nn.Linear(2 * c + FEATURES, 48), nn.ReLU(inplace=True), nn.Linear(48, 1))

    def forward(self, patches: torch.Tensor, shapes: torch.Tensor) -> torch.Tensor:
        """Logits, shape (n,), of patches (n, 2, s, s, s) and shape figures (n, 7)."""
        maps = self.body(patches)
        pooled = torch.cat([maps.mean(dim=(2, 3, 4)), maps.amax(dim=(2, 3, 4)), shapes], dim=1)
        logits: torch.Tensor = self.head(pooled).squeeze(1)
        return logits


class Detector:
    """The trained scorer."""

    def __init__(
        self, state: Mapping[str, torch.Tensor], settings: DetectorSettings, device: torch.device | str = "cpu"
    ) -> None:
        """Build the network.

        Raises:
            BundleError: the weights do not fit the settings.
        """
        self.settings = settings
        self.device = torch.device(device)
        network = ScoreNet(settings.channels)
        expected = network.state_dict()
        try:
            network.load_state_dict({name: value.to(expected[name].dtype) for name, value in state.items()})
        except (KeyError, RuntimeError) as error:
            raise BundleError("the detector's weights do not fit its settings; fetch the bundle again") from error
        self.network = network.eval().to(self.device)

    @classmethod
    def from_bundle(cls, bundle: HoldsDetector, device: torch.device | str = "cpu") -> Detector:
        """Take the detector out of a model bundle.

        Raises:
            BundleError: there is none, or it is damaged.
        """
        settings = bundle.detector_settings
        if settings is None:
            raise BundleError("the bundle has no detector; export one with a detector (python -m training …)")
        return cls(bundle.tensors("detector"), DetectorSettings.from_dict(settings), device)

    def score(self, candidates: Sequence[Candidate]) -> FloatArray:
        """Confidence of every candidate, shape (n,), 0 to 1."""
        scores = np.zeros(len(candidates), dtype=np.float32)
        for first in range(0, len(candidates), BATCH):
            part = candidates[first : first + BATCH]
            patches = np.zeros((BATCH, 2, *(self.settings.patch,) * 3), dtype=np.float32)
            shapes = np.zeros((BATCH, FEATURES), dtype=np.float32)
            for n, candidate in enumerate(part):
                patches[n] = patch_of(candidate, self.settings)
                shapes[n] = candidate.shape.features()
            with torch.inference_mode():
                logits = self.network(torch.from_numpy(patches).to(self.device), torch.from_numpy(shapes).to(self.device))
                values = torch.sigmoid(logits.float()).cpu().numpy()
            scores[first : first + len(part)] = values[: len(part)]
        return scores


def patch_of(candidate: Candidate, settings: DetectorSettings) -> npt.NDArray[np.float32]:
    """CT (windowed) and mask around a candidate's centre, shape (2, s, s, s); beyond the grid fat and no mask.

    Left axillae are mirrored, so that the network sees one kind of axilla.
    """
    size = settings.patch
    grid = candidate.grid
    corner = [round(c) - size // 2 for c in candidate.centre]
    patch = np.zeros((2, size, size, size), dtype=np.float32)
    scale = settings.window_high - settings.window_low
    patch[0] = (-100.0 - settings.window_low) / scale
    low = [max(0, c) for c in corner]
    high = [min(n, c + size) for n, c in zip(grid.hu.shape, corner, strict=True)]
    to = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))
    part = grid.hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    patch[0][to] = np.clip((part - settings.window_low) / scale, 0, 1)
    at = [o - c for o, c in zip(candidate.offset, corner, strict=True)]
    inner = [max(0, a) for a in at]
    outer = [min(size, a + n) for a, n in zip(at, candidate.mask.shape, strict=True)]
    if all(b > a for a, b in zip(inner, outer, strict=True)):
        into = tuple(slice(a, b) for a, b in zip(inner, outer, strict=True))
        patch[1][into] = candidate.mask[tuple(slice(a - o, b - o) for a, b, o in zip(inner, outer, at, strict=True))]
    return np.ascontiguousarray(patch[..., ::-1]) if grid.side == "left" else patch
