"""Run the network of the detector in parts: the same values as `AxillaNet.forward`, in less time and memory.

The finest grid holds most of the work. Its first half runs in slabs of slices, whose memory is used again; its second half runs only
around the search region, which fills about a sixth of the box that the network sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch.nn import functional

from alnnode.locate.distances import mask_box
from alnnode.locate.network import INPUTS, SUB, scaled_hu, scaled_place, to_voxels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from alnnode.locate.grid import Mask
    from alnnode.locate.network import AxillaNet, Block

    Box = tuple[slice, ...]

SLAB = 24  # slices of the finest grid at most; PyTorch computes convolutions of much smaller parts slowly
REACH = 2  # points that a block sees on each side


def logits_in(network: AxillaNet, hu: Tensor, place: Sequence[Tensor], region: Mask) -> Iterator[tuple[Box, Tensor]]:
    """Yield boxes that together hold a region, and the logits (`OUTPUTS`, z, y, x) in each of them.

    Args:
        network: in evaluation mode, with its batch norms folded.
        hu: (z, y, x); the edges are multiples of `AxillaNet.multiple`.
        place: position of each slice, row and column relative to the landmarks, as `network.inputs` expects it.
        region: mask of the same shape, at least `detector.HALO` points inside its border.
    """
    boxes = _boxes(region)
    maps = [_first_half(network, hu, place)]
    for down in network.down:
        maps.append(down(maps[-1]))
    x = maps.pop()
    for up, joined, skip in zip(reversed(network.up[2:]), reversed(network.joined[2:]), reversed(maps[2:]), strict=True):
        x = joined(up(x).add_(skip))
    below = _Part(x, (0, 0, 0))
    whole = tuple(slice(min(s.start for s in along), max(s.stop for s in along)) for along in zip(*boxes, strict=True))
    if len(maps) > 1:
        part = _coarser(_wider(whole))
        below = _block(cast("Block", network.joined[1]), _entering(network, 1, maps[1], below, part), part)
    entering = _entering(network, 0, maps[0], below, whole)
    for box in boxes:
        y = _block(cast("Block", network.joined[0]), entering, box).values
        logits = to_voxels(functional.conv3d(y, network.out.weight, network.out.bias))
        yield tuple(slice(SUB * s.start, SUB * s.stop) for s in box), logits[0]


def _first_half(network: AxillaNet, hu: Tensor, place: Sequence[Tensor]) -> Tensor:
    """Return the map of the finest grid that the coarser grids are made from."""
    conv, block = cast("nn.Conv3d", network.stem[0]), network.entry
    shape = (1, conv.out_channels, *(n // SUB for n in hu.shape))
    x = torch.empty(shape, dtype=conv.weight.dtype, device=hu.device, memory_format=torch.channels_last_3d)
    slabs = list(_slabs(shape[2]))
    for slab in slabs:
        planes = slice(max(0, SUB * slab.start - 1), SUB * slab.stop + 1)
        seen = _inputs(hu[planes], [place[0][planes], *place[1:]], conv.weight.dtype)
        x[:, :, slab] = _across(conv, seen, slab, shape[2]).relu_()
    # The block overwrites what it sees, except the slices that it sees again with the next slab.
    before = x[:, :, :0]
    for slab in slabs:
        seen = torch.cat([before, x[:, :, slab.start : slab.stop + REACH]], dim=2)
        before = x[:, :, max(0, slab.stop - REACH) : slab.stop].clone()
        y = _across(block.first, seen, slab, shape[2]).relu_()
        x[:, :, slab].add_(_across(block.second, y, slab, shape[2])).relu_()
    return x


def _across(conv: nn.Conv3d, part: Tensor, slab: slice, slices: int) -> Tensor:
    """Return the convolution of a slab; beyond the ends of the volume, ``part`` has no slices."""
    ends = (int(slab.start == 0), int(slab.stop == slices))
    if any(ends):
        part = functional.pad(part, (0, 0, 0, 0, *ends))
    return functional.conv3d(part, conv.weight, conv.bias, conv.stride, (0, 1, 1))


def _inputs(hu: Tensor, place: Sequence[Tensor], number_format: torch.dtype) -> Tensor:
    """Return the input of the network (`network.inputs`) for some slices, in the number format of its weights."""
    shape = (1, INPUTS, *hu.shape)
    given = torch.empty(shape, dtype=number_format, device=hu.device, memory_format=torch.channels_last_3d)
    given[0, 0] = scaled_hu(hu)
    for axis, line in enumerate(place):
        given[0, 1 + axis] = scaled_place(line).reshape([-1 if n == axis else 1 for n in range(3)])
    return given


@dataclass(frozen=True, slots=True)
class _Part:
    """A map in a part of its grid; ``start`` is the point of its first element."""

    values: Tensor
    start: tuple[int, ...]

    def cut(self, box: Box) -> Tensor:
        """Return the map in a box."""
        z, y, x = (slice(s.start - at, s.stop - at) for s, at in zip(box, self.start, strict=True))
        return self.values[..., z, y, x].contiguous(memory_format=torch.channels_last_3d)


def _entering(network: AxillaNet, level: int, skip: Tensor, below: _Part, box: Box) -> _Part:
    """Return what the block of the second half of a grid sees of a box: the skip connection plus the next coarser grid.

    It is computed at once, because PyTorch computes transposed convolutions of small parts slowly. It overwrites the skip connection.
    """
    part = _coarser(_wider(box))
    z, rows, columns = (slice(SUB * s.start, SUB * s.stop) for s in part)
    x = skip[..., z, rows, columns].add_(network.up[level](below.cut(part)))
    return _Part(x, (z.start, rows.start, columns.start))


def _block(block: Block, entering: _Part, box: Box) -> _Part:
    """Return the result of a block in a box."""
    x = entering.cut(_wider(box))
    y = functional.conv3d(x, block.first.weight, block.first.bias).relu_()
    y = functional.conv3d(y, block.second.weight, block.second.bias)
    return _Part(y.add_(entering.cut(box)).relu_(), tuple(s.start for s in box))


def _wider(box: Box) -> Box:
    """Return what a block sees of a box."""
    return tuple(slice(s.start - REACH, s.stop + REACH) for s in box)


def _coarser(box: Box) -> Box:
    """Return the box of the next coarser grid that holds a box."""
    return tuple(slice(s.start // SUB, -(-s.stop // SUB)) for s in box)


def _boxes(region: Mask) -> list[Box]:
    """Return boxes of the finest grid that together hold a region: one for each slab of slices."""
    used = np.asarray(region.reshape([n for size in region.shape for n in (size // SUB, SUB)]).any(axis=(1, 3, 5)))
    slices = mask_box(used, 0)[0]
    boxes: list[Box] = []
    for slab in _slabs(slices.stop - slices.start):
        first = slices.start + slab.start
        part = used[first : slices.start + slab.stop]
        if part.any():
            z, y, x = mask_box(part, 0)
            boxes.append((slice(z.start + first, z.stop + first), y, x))
    return boxes


def _slabs(slices: int) -> Iterator[slice]:
    """Yield slabs of about the same number of slices."""
    count = -(-slices // SLAB)
    for n in range(count):
        yield slice(slices * n // count, slices * (n + 1) // count)
