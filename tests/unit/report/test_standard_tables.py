"""The tables of the standard are loaded once, before the first report."""

import subprocess
import sys

import pytest

_RUN = """
import json
from alnnode.report import standard_tables
{before}
def loads(*_): raise SystemExit("read a table")
json.loads = loads
standard_tables.load()
"""


@pytest.mark.parametrize(("before", "said"), [("standard_tables.load()", ""), ("", "read a table\n")])
def test_a_report_reads_no_table_after_they_were_loaded(before: str, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", _RUN.format(before=before)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (int(bool(said)), said)
