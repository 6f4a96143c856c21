"""Weights of a bundle as tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load

from alnnode.errors import BundleError

if TYPE_CHECKING:
    import torch

    from alnnode.model.bundle import Bundle


def load_tensors(bundle: Bundle, name: str) -> dict[str, torch.Tensor]:
    """Return the weights of "fsc", "asc" or "detector".

    Raises:
        BundleError: the bundle has no detector, or the file is not in safetensors format.
    """
    try:
        tensors: dict[str, torch.Tensor] = load(bundle.weights(name))
    except SafetensorError as error:
        raise BundleError(f"the weights of {name} are not a safetensors file: {error}; export the bundle again") from error
    return tensors
