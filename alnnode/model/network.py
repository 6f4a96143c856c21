"""The networks by name, from MONAI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai.networks.nets import DenseNet121

from alnnode.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def build(channels: int) -> torch.nn.Module:
    """Return a DenseNet121 (Huang et al., CVPR 2017) for 2D crops: input (N, channels, S, S), output one logit (N, 1)."""
    network: torch.nn.Module = DenseNet121(spatial_dims=2, in_channels=channels, out_channels=1)
    return network


def restore(channels: int, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Return the network with the given weights in float32, in evaluation mode.

    Raises:
        BundleError: names or shapes of the weights are not those of the network.
    """
    network = build(channels)
    try:
        network.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise BundleError("the weights do not fit a DenseNet121 with these channels; export the bundle again") from error
    return network.eval()


def target_layer(network: torch.nn.Module) -> torch.nn.Module:
    """Return the layer that Grad-CAM looks at: the third dense block, 1/16 of the crop.

    The last one, 1/32, would draw a 96-pixel crop in 3 x 3 patches: too coarse to tell a node from its surroundings.
    """
    return network.get_submodule("features.denseblock3")
