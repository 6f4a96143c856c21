"""The trained detector: a 3D network that maps, for each axilla, where lymph nodes are.

``training.detection`` trains it; the bundle holds its weights as ``detector.safetensors``.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch.nn.utils.fusion import fuse_conv_bn_eval

from alnnode.errors import BundleError
from alnnode.locate.axillary_level import LevelModel
from alnnode.locate.distances import mask_box
from alnnode.locate.inference import logits_in
from alnnode.locate.network import DEPTH, INPUTS, NODE, AxillaNet, Block

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from alnnode.locate.grid import Mask
    from alnnode.locate.search_grid import SearchGrid

HALO = 16  # grid points around the search region that are part of the network's input
FAT_HU = -100.0  # value of grid points beyond the image


class DetectorBundle(Protocol):
    """The part of a model bundle that `Detector.from_bundle` uses."""

    @property
    def detector_settings(self) -> Mapping[str, Any] | None:
        """The settings of the detector in the manifest; None when the bundle has no detector."""

    def weights(self, name: str) -> bytes:
        """Return the safetensors file of one network."""


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """Settings of the detector in the manifest.

    Attributes:
        channels: of the network, from its finest to its coarsest grid.
        threshold: operating point on the score.
        levels: model of the axillary level; None: levels are not determined.
    """

    channels: tuple[int, ...] = (24, 48, 96, 128)
    threshold: float = 0.3
    levels: LevelModel | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectorSettings:
        """Return the settings from a manifest.

        Raises:
            BundleError: a key is unknown or a value is of the wrong kind.
        """
        try:
            chosen = dict(values)
            if "channels" in chosen:
                chosen["channels"] = tuple(int(n) for n in chosen["channels"])
            if chosen.get("levels") is not None:
                chosen["levels"] = LevelModel.from_dict(chosen["levels"])
            settings = cls(**chosen)
            fits = 2 <= len(settings.channels) <= 6 and all(1 <= n <= 1024 for n in settings.channels)
            fits = fits and 0 <= settings.threshold <= 1
        except (TypeError, ValueError) as error:
            raise BundleError(f"the bundle's detector settings cannot be used ({error}); fetch the bundle again") from error
        if not fits:
            raise BundleError("the bundle's detector settings are out of range; fetch the bundle again")
        return settings

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON data for a manifest."""
        return {**asdict(self), "channels": list(self.channels)}


@dataclass(frozen=True, slots=True)
class DetectorMaps:
    """Outputs of the network for each point of a search grid, (z, y, x) float32 from 0 to 1.

    Attributes:
        node: probability of "lymph node", its hilum included.
        depth: depth inside a node: 1 at its core, 0 at its surface and outside. Between touching nodes the depth has a valley.
    """

    node: npt.NDArray[np.float32]
    depth: npt.NDArray[np.float32]


class Detector:
    """The trained network."""

    def __init__(
        self, state: Mapping[str, torch.Tensor], settings: DetectorSettings, device: torch.device | str = "cpu"
    ) -> None:
        """Build the network.

        Raises:
            BundleError: the weights do not fit the settings.
        """
        self.settings = settings
        self.device = torch.device(device)
        network = AxillaNet(settings.channels)
        expected = network.state_dict()
        try:
            network.load_state_dict({name: value.to(expected[name].dtype) for name, value in state.items()})
        except (KeyError, RuntimeError) as error:
            raise BundleError("the detector's weights do not fit its settings; fetch the bundle again") from error
        self.number_format = number_format(self.device)
        network = _fused(network.eval()).to(self.device, self.number_format)
        self.network = network.to(memory_format=torch.channels_last_3d)

    @classmethod
    def from_bundle(cls, bundle: DetectorBundle, device: torch.device | str = "cpu") -> Detector:
        """Return the detector of a model bundle.

        Raises:
            BundleError: the bundle has no detector, or the detector is damaged.
        """
        settings = bundle.detector_settings
        if settings is None:
            raise BundleError("the bundle has no detector; export one with a detector (python -m training …)")
        try:
            state = load(bundle.weights("detector"))
        except SafetensorError as error:
            raise BundleError(f"the detector's weights are not a safetensors file: {error}; export the bundle again") from error
        return cls(state, DetectorSettings.from_dict(settings), device)

    @cached_property
    def arithmetic(self) -> str:
        """What the last bits of a map depend on beside input and weights: the number format and, of a CPU, the answer to fixed noise."""
        named = str(self.number_format).removeprefix("torch.")
        if self.device.type == "cuda":
            return named
        edge = 2 * self.network.multiple
        noise = np.random.default_rng(0).random((1, INPUTS, edge, edge, edge), np.float32)
        with torch.inference_mode():
            answer = self.network(torch.from_numpy(noise).to(self.number_format)).float().numpy()
        return f"{named}, {hashlib.sha256(answer.tobytes()).hexdigest()}"

    def predict(self, grid: SearchGrid) -> DetectorMaps:
        """Return the maps of one axilla; they are 0 outside its search region."""
        # Left axillae are mirrored: the network was trained on right ones.
        turn = slice(None, None, -1 if grid.side == "left" else 1)
        hu, region, ramps = grid.hu[..., turn], grid.region[..., turn], grid.ramps
        if grid.side == "left":
            ramps = mirrored_ramps(ramps, hu.shape[2])
        found = np.zeros((2, *hu.shape), dtype=np.float32)
        if region.any():
            self._predict_region(hu, ramps, region, found)
        found *= region
        node, depth = (np.ascontiguousarray(part[..., turn]) for part in found)
        return DetectorMaps(node, depth)

    def _predict_region(
        self, hu: npt.NDArray[np.float32], ramps: npt.NDArray[np.float64], region: Mask, found: npt.NDArray[np.float32]
    ) -> None:
        """Write both maps (2, z, y, x) of a non-empty region."""
        _, box = boxes(region, self.network.multiple)
        cut = tuple(slice(max(0, s.start), min(n, s.stop)) for s, n in zip(box, hu.shape, strict=True))
        beyond = [(c.start - s.start, s.stop - c.stop) for s, c in zip(box, cut, strict=True)]
        part = torch.from_numpy(np.pad(hu[cut], beyond, constant_values=FAT_HU)).to(self.device)
        lines = [
            torch.from_numpy((at + by * np.arange(s.start, s.stop)).astype(np.float32)).to(self.device)
            for (at, by), s in zip(ramps, box, strict=True)
        ]
        with torch.inference_mode():
            for inner, logits in logits_in(self.network, part, lines, np.pad(region[cut], beyond)):
                values = torch.sigmoid(logits[[NODE, DEPTH]].float()).cpu().numpy()
                # A box of the network may be one point larger than the region, which ends at the border of the grid.
                place = tuple(slice(s.start + b.start, s.stop + b.start) for s, b in zip(inner, box, strict=True))
                kept = tuple(slice(max(0, -p.start), n - p.start) for p, n in zip(place, hu.shape, strict=True))
                found[(slice(None), *(slice(max(0, p.start), p.stop) for p in place))] = values[(slice(None), *kept)]


def number_format(device: torch.device) -> torch.dtype:
    """Return the number format of the network on a device: bfloat16 on a CPU with instructions for it, where it halves the time.

    `get_cpu_capability` respects the limit that ATEN_CPU_CAPABILITY sets.
    """
    # Older versions of PyTorch do not list the instructions of the CPU.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    quick = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    fits = device.type == "cpu" and quick and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.bfloat16 if fits else torch.float32


def mirrored_ramps(ramps: npt.NDArray[np.float64], columns: int) -> npt.NDArray[np.float64]:
    """Return the ramps (`alnnode.locate.axillary_level.Landmarks.ramps`) of a mirrored grid; ``columns`` is its width."""
    turned = ramps.copy()
    turned[2] = ramps[2, 0] + (columns - 1) * ramps[2, 1], -ramps[2, 1]
    return turned


def boxes(region: npt.NDArray[np.bool_], multiple: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the box of a non-empty region, and the larger box that is the input of the network.

    The larger box extends `HALO` points further on all sides. Its edges are multiples of ``multiple``. It may reach beyond the array.
    """
    core = mask_box(region, 0)
    edges = [-(-(c.stop - c.start + 2 * HALO) // multiple) * multiple for c in core]
    return core, tuple(slice(c.start - HALO, c.start - HALO + n) for c, n in zip(core, edges, strict=True))


def _fused(network: AxillaNet) -> AxillaNet:
    """Return the network with its batch norms folded into the preceding convolutions: the same function with fewer operations."""
    for sequence in (network.stem, *network.down):
        sequence[0], sequence[1] = fuse_conv_bn_eval(sequence[0], sequence[1]), torch.nn.Identity()
    for block in network.modules():
        if isinstance(block, Block):
            for conv, norm in (("first", "norm_first"), ("second", "norm_second")):
                setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
                setattr(block, norm, torch.nn.Identity())
    return network
