"""One analysing process for each GPU."""

import os
from types import SimpleNamespace

import pytest

from workers import devices


@pytest.mark.parametrize(
    ("variable", "expected"),
    [(None, ["0", "1"]), ("3", ["3"]), ("1, GPU-5a", ["1", "GPU-5a"]), ("", []), ("-1", [])],
)
def test_the_gpus_are_those_of_the_driver_or_of_the_environment(tmp_path, monkeypatch, variable, expected) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(devices.VARIABLE, variable)
    assert devices.visible(tmp_path) == expected


def test_no_driver_means_no_gpu(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    assert devices.visible(tmp_path / "missing") == []


def test_each_process_of_the_pool_sees_one_gpu(monkeypatch) -> None:
    seen = []
    monkeypatch.setenv(devices.VARIABLE, "0,1,2")
    for index in range(3):
        monkeypatch.setattr(devices, "current_process", lambda index=index: SimpleNamespace(index=index))
        devices.use(["0", "1", "2"])
        seen.append(os.environ[devices.VARIABLE])
    assert seen == ["0", "1", "2"]
    devices.use([])
    assert os.environ[devices.VARIABLE] == "2", "without GPUs the variable stays"
