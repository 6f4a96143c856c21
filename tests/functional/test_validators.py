"""Every kind of result before the validators that others wrote: no error from any of them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from analyses import CONTEXT, variants

from alnnode import report
from alnnode.records import ObjectRole


def tool(name: str) -> str:
    """Return the tool's path, from this environment or the system; skip loudly where it is absent."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        pytest.skip(f"### {name} IS MISSING: results were not validated by it ###")
    return found


@pytest.fixture(params=variants())
def written(request: pytest.FixtureRequest, tmp_path: Path) -> list[tuple[ObjectRole, Path]]:
    files = []
    for number, item in enumerate(report.build(variants()[request.param], CONTEXT)):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(item.data)
        files.append((item.role, path))
    return files


def said(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_dciodvfy_reports_no_error(written) -> None:
    dciodvfy = tool("dciodvfy")
    for _, path in written[:3]:
        _, output = said(dciodvfy, str(path))
        assert not [line for line in output.splitlines() if line.startswith("Error")], output


@pytest.mark.dcmtk
def test_dsrdump_reads_every_report(written) -> None:
    code, output = said(tool("dsrdump"), str(written[0][1]))
    assert code == 0
    assert not [line for line in output.splitlines() if line.startswith(("E:", "F:"))], output


def test_tid1500reader_reads_every_group(written, tmp_path: Path) -> None:
    reader = tool("tid1500reader")
    sr = written[0][1]
    if b"Imaging Measurement Report" not in sr.read_bytes():
        return  # a text report has no template 1500 to read
    target = tmp_path / "read.json"
    code, output = said(reader, "--inputDICOM", str(sr), "--outputMetadata", str(target))
    assert code == 0, output
    assert target.read_text().count("TrackingUniqueIdentifier") == sr.read_bytes().count(b"Measurement Group")
