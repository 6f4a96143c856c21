"""A device that runs out of memory gets smaller batches, and each series has batches of its own on a CPU."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from bundles import write_bundle

from alnnode import pipeline
from alnnode.model import bundle, saliency
from alnnode.model.ensemble import Ensemble
from alnnode.records import Crop, CropGeometry, CropPair

GEOMETRY = CropGeometry(Crop.FSC, 0, 0.0, 0.0, 1.0, 1.0, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def crops(count: int, seed: int = 5) -> list[CropPair]:
    rng = np.random.default_rng(seed)
    return [CropPair(*(rng.random((1, 64, 64), np.float32) for _ in range(2)), GEOMETRY, GEOMETRY) for _ in range(count)]


def limit_memory(limited: Ensemble, most: int) -> None:
    """Let the real networks run out of memory for batches of more than ``most`` crops."""

    def refuse(_network, arguments) -> None:
        if len(arguments[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    for network in limited.members.values():
        network.register_forward_pre_hook(refuse)


def test_out_of_memory_halves_the_batch_and_changes_no_result(folder) -> None:
    loaded, given = bundle.load(folder), crops(5)
    limited, unlimited = Ensemble(loaded, "cpu"), Ensemble(loaded, "cpu")
    limit_memory(limited, 2)
    assert limited.predict(given) == unlimited.predict(given)
    assert limited.batch == 2
    for ours, theirs in zip(saliency.explain(limited, given), saliency.explain(unlimited, given), strict=True):
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.values, two.values, atol=2e-3)  # rounded to three decimals


def test_a_heatmap_runs_out_of_memory_too(folder) -> None:
    limited = Ensemble(bundle.load(folder), "cpu")
    limit_memory(limited, 4)
    assert len(saliency.explain(limited, crops(5))) == 5
    assert limited.batch == 4


def test_too_little_memory_for_one_crop_is_an_error(folder) -> None:
    limited = Ensemble(bundle.load(folder), "cpu")
    limit_memory(limited, 0)
    with pytest.raises(torch.OutOfMemoryError):
        limited.predict(crops(1))


def test_series_in_parallel_have_the_same_results_on_a_cpu_as_alone(folder) -> None:
    series = [crops(count, seed) for seed, count in enumerate((3, 1, 9))]
    loaded = Ensemble(bundle.load(folder), "cpu")
    alone = [(loaded.predict(one), saliency.explain(loaded, one)) for one in series]
    models = pipeline.Models(loaded, detector=None)
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda one: (models.predict(one), models.explain(one)), series))
    for (predictions, maps), (expected, expected_maps) in zip(together, alone, strict=True):
        assert predictions == expected
        for ours, theirs in zip(maps, expected_maps, strict=True):
            assert [one.values.tobytes() for one in ours] == [one.values.tobytes() for one in theirs]
