"""The fuzzer finds old faults that are planted in the node, deep sequences and numbers that are not finite, and nothing in the node as it is."""

import pytest

pytest.importorskip("torch")

from chaos import fuzz, planted
from chaos.readers import COSTLY, TRIES
from chaos.seeds import Seeds

SEED, COUNT = 3, 80
JSON = ("attributes", "metadata")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> Seeds:
    return Seeds(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(autouse=True)
def _patient(monkeypatch) -> None:
    monkeypatch.setattr(fuzz, "LIMIT", 120)  # seconds of one try, on a machine with other work


@pytest.mark.parametrize(
    ("bug", "finding"),
    [("deep-json", "UnguardedError"), ("numbers-that-are-none", "AssertionError"), ("", "")],
)
def test_it_finds_an_old_fault_and_nothing_without_it(seeds, monkeypatch, bug, finding) -> None:
    monkeypatch.setattr(fuzz, "BATCH", COUNT)

    def tries():
        if bug:
            planted.BUGS[bug]()
        return fuzz.batch(seeds, SEED, 0, JSON)

    outcomes, findings = fuzz.isolated(tries, 0)  # a child process: the bug does not remain in this one
    assert sum(outcomes.values()) == COUNT
    assert {name for name, _ in outcomes} == set(JSON)
    if bug:
        assert any(f" {finding} at " in line for line in findings), findings
    else:
        assert findings == []


def test_it_finds_nothing_in_the_node_as_it_is(seeds) -> None:
    names = [name for name in TRIES if name not in COSTLY]
    outcomes, findings = fuzz.isolated(lambda: fuzz.batch(seeds, SEED, 1, names), 1)
    assert findings == []
    assert {name for name, _ in outcomes} == set(names)
