"""The detector computes in bfloat16 where the processor has instructions for it, and says so in the identity of a result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alnnode import phantom
from alnnode.locate import detector as detectors
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.detector import Detector, number_format
from alnnode.locate.search_grid import search_grids
from alnnode.model import bundle
from training.data.cohort import as_volume

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "limit", "device", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "AVX512", "cpu", torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, "AVX512", "cpu", torch.bfloat16),
        ({"avx512_bf16": True}, "AVX2", "cpu", torch.float32),  # ATEN_CPU_CAPABILITY
        ({"avx512_bf16": False, "amx_bf16": False}, "AVX512", "cpu", torch.float32),
        ({"neon": True}, "DEFAULT", "cpu", torch.float32),
        ({"avx512_bf16": True}, "AVX512", "cuda", torch.float32),
    ],
)
def test_only_a_processor_with_the_instructions_uses_bfloat16(monkeypatch, capabilities, limit, device, expected) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: limit)
    assert number_format(torch.device(device)) is expected


@pytest.mark.skipif(number_format(CPU) is torch.float32, reason="this processor has no instructions for bfloat16")
def test_both_formats_see_nearly_the_same_and_have_other_identities(monkeypatch) -> None:
    loaded = bundle.load(bundle.resolve("demo"))
    made = phantom.make_patient(4, 1, phantom.PhantomSettings(slices=(60, 60)))
    grid, _ = search_grids(ChestAnatomy(as_volume(made)))
    quick = Detector.from_bundle(loaded)
    monkeypatch.setattr(detectors, "number_format", lambda _: torch.float32)
    exact = Detector.from_bundle(loaded)
    ours, theirs = quick.predict(grid), exact.predict(grid)
    assert theirs.node.max() > 0.5
    np.testing.assert_allclose(ours.node, theirs.node, atol=0.08)
    assert np.abs(ours.depth - theirs.depth).mean() < 1e-3
    assert not np.array_equal(ours.node, theirs.node)
    assert quick.arithmetic.startswith("bfloat16, ")
    assert exact.arithmetic.startswith("float32, ")
    assert Detector.from_bundle(loaded).arithmetic == exact.arithmetic
