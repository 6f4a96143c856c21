"""The networks of a worker process, which several series share."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

from bundles import write_bundle

from alnnode import pipeline
from alnnode.model import bundle
from alnnode.model.ensemble import Ensemble
from alnnode.settings import Settings
from workers.analyst import ModelAnalyst


def test_series_that_begin_together_load_the_networks_once(tmp_path, monkeypatch) -> None:
    """Networks that were loaded twice had two locks for one device."""
    settings = Settings.model_validate({"analysis": {"bundle": str(write_bundle(tmp_path / "bundle")), "device": "cpu"}})
    expected, loads, begin = bundle.load(tmp_path / "bundle").digest, [], Barrier(3)

    def load(_models: type, given: bundle.Bundle, device: str) -> pipeline.Models:
        loads.append(given.digest)
        return pipeline.Models(Ensemble(given, device), SimpleNamespace(arithmetic="none"))

    monkeypatch.setattr(pipeline.Models, "load", classmethod(load))
    analyst = ModelAnalyst(settings.analysis, lambda _: None)

    def first(_: int) -> tuple[str, str]:
        begin.wait(timeout=60)
        return analyst.digest, analyst.arithmetic

    with ThreadPoolExecutor(3) as threads:
        found = set(threads.map(first, range(3)))
    assert loads == [expected]
    assert {digest for digest, _ in found} == {expected}
    assert len(found) == 1
    assert analyst.arithmetic.endswith(", detector none")
