"""One study on two nodes and several processors, each in a process of its own: no SOP Instance UID has two contents.

Run by `make validate`; `tests/unit/model/test_arithmetic.py` is the short form, and tests/gpu compares a GPU with a CPU.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from alnnode import phantom

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif("ALNNODE_VALIDATE" not in os.environ, reason="slow: `make validate` runs it"),
]
# Limits of the instruction set, and another number of threads, are other processors: the sums have another order.
PROCESSORS = {
    "as it is": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41", "DNNL_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    "two threads": {"OMP_NUM_THREADS": "2"},
}
KINDS = 'kinds = ["seg", "pmap", "ko", "pr", "tree", "text", "pdf", "rtstruct"]'


def analysed(study: Path, out: Path, processor: dict[str, str], node: str = "ALNNODE") -> tuple[dict[str, str], set[str]]:
    """Return the sha256 of the result objects by SOP Instance UID, and the UIDs of their series."""
    config = out.with_suffix(".toml")
    config.write_text(f'[node]\nae_title = "{node}"\n[analysis]\ndevice = "cpu"\n[report]\n{KINDS}\n', encoding="utf-8")
    command = [sys.executable, "-m", "alnnode", "analyse", str(study), "--out", str(out), "--config", str(config)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1", **processor})
    found, series = {}, set()
    for path in out.rglob("*.dcm"):
        header = dcmread(path, stop_before_pixels=True)
        found[str(header.SOPInstanceUID)] = hashlib.sha256(path.read_bytes()).hexdigest()
        series.add(str(header.SeriesInstanceUID))
    return found, series


def test_no_uid_has_two_contents_on_several_processors_and_nodes(tmp_path: Path) -> None:
    phantom.write_series(phantom.make_patient(60606, 0, phantom.PhantomSettings(slices=(60, 60))), tmp_path / "study")
    runs = {name: analysed(tmp_path / "study", tmp_path / name, limits) for name, limits in PROCESSORS.items()}
    runs["another node"] = analysed(tmp_path / "study", tmp_path / "another node", {}, node="OTHER")
    contents = defaultdict(set)
    for objects, _ in runs.values():
        for uid, digest in objects.items():
            contents[uid].add(digest)
    assert {uid: len(digests) for uid, digests in contents.items() if len(digests) > 1} == {}
    # Each processor that gives other bits has series of its own, so that a viewer never lists two reports in one series.
    assert len({frozenset(runs[name][0]) for name in PROCESSORS}) > 1, "all processors gave the same bits: this shows nothing"
    for name, (objects, series) in runs.items():
        for other, (others, other_series) in runs.items():
            assert objects == others or series.isdisjoint(other_series), f"{name} and {other}"
    assert runs["another node"][1].isdisjoint(runs["as it is"][1])
    assert analysed(tmp_path / "study", tmp_path / "again", {}) == runs["as it is"]
