"""The 3D network of the detector: a residual U-Net that segments the lymph nodes of one axilla at 1 mm.

Its first layer (4 x 4 x 4 voxels, stride 2) halves the resolution, which reduces the cost of the other layers. Its last layer restores
the full resolution (sub-voxel convolution, Shi, CVPR 2016).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTPUTS = 2
NODE, DEPTH = 0, 1  # logits: node (with its hilum), and depth inside a node, from 0 at its surface to 1 at its core
INPUTS = 4  # scaled HU, and the position of the voxel relative to three landmarks
SUB = 2  # voxels along an axis for each element of the finest grid of the network


class Block(nn.Module):
    """Two convolutions with a skip connection (He, CVPR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.norm_first = nn.BatchNorm3d(channels)
        self.second = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.norm_second = nn.BatchNorm3d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return maps of the same shape."""
        y = self.norm_first(self.first(x)).relu_()
        out: torch.Tensor = self.norm_second(self.second(y)).add_(x).relu_()
        return out


class AxillaNet(nn.Module):
    """A U-Net whose skip connections are added, not concatenated.

    Args:
        channels: of each resolution: 2 mm, 4 mm, 8 mm, … for a grid of 1 mm.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        first = channels[0]
        self.stem = nn.Sequential(
            nn.Conv3d(INPUTS, first, 4, stride=2, padding=1, bias=False), nn.BatchNorm3d(first), nn.ReLU(inplace=True)
        )
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv3d(a, b, 2, stride=2, bias=False), nn.BatchNorm3d(b), nn.ReLU(inplace=True), Block(b))
            for a, b in pairwise(channels)
        )
        self.entry = Block(first)
        self.up = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, stride=2, bias=False) for a, b in pairwise(channels))
        self.joined = nn.ModuleList(Block(a) for a in channels[:-1])
        self.out = nn.Conv3d(first, OUTPUTS * SUB**3, 1)

    @property
    def multiple(self) -> int:
        """Edges of the input must be multiples of this many voxels."""
        return SUB << len(self.down)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Return logits (n, `OUTPUTS`, z, y, x) of `inputs` (n, `INPUTS`, z, y, x)."""
        maps = [self.entry(self.stem(seen))]
        for down in self.down:
            maps.append(down(maps[-1]))
        x = maps.pop()
        for up, joined, skip in zip(reversed(self.up), reversed(self.joined), reversed(maps), strict=True):
            x = joined(skip + up(x))
        return to_voxels(self.out(x))


def inputs(hu: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return the input of the network, (n, `INPUTS`, z, y, x).

    Args:
        hu: (n, 1, z, y, x).
        place: (n, 3, z, y, x) as `alnnode.locate.axillary_level.Landmarks.ramps`: dm below the apex, depth, distance from the midline.
    """
    return torch.cat([scaled_hu(hu), scaled_place(place)], dim=1)


def scaled_hu(hu: torch.Tensor) -> torch.Tensor:
    """Return HU as the network sees them."""
    return (hu / 100).clamp(-2, 3)


def scaled_place(place: torch.Tensor) -> torch.Tensor:
    """Return positions relative to the landmarks as the network sees them."""
    return place.clamp(-1.5, 3)


def to_voxels(x: torch.Tensor) -> torch.Tensor:
    """Return (n, c, 2 z, 2 y, 2 x) of (n, c * 8, z, y, x): the rearrangement of the sub-voxel convolution."""
    n, c, z, y, w = x.shape
    c //= SUB**3
    x = x.reshape(n, c, SUB, SUB, SUB, z, y, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(n, c, z * SUB, y * SUB, w * SUB)
