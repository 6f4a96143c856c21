"""The conformance statement and the code say the same."""

import re
from pathlib import Path

from alnnode.ingest.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from alnnode.ingest.status import Status

DOCS = Path(__file__).parents[2] / "docs"


def section(title: str) -> str:
    text = (DOCS / "conformance.md").read_text(encoding="utf-8")
    return text.split(title, 1)[1].split("\n### ", 1)[0]


def test_the_conformance_statement_lists_what_the_listener_accepts() -> None:
    listed = re.findall(r"\| ([0-9.]+) \|$", section("### 2.1"), re.MULTILINE)
    assert listed == [str(uid) for uid in (*STORAGE_CLASSES, *TRANSFER_SYNTAXES)]


def test_the_conformance_statement_lists_every_status() -> None:
    listed = [int(code, 16) for code in re.findall(r"^\| (0x[0-9A-F]{4}) \|", section("### 2.1"), re.MULTILINE)]
    assert listed == [int(status) for status in Status]


def test_links_between_the_documents_lead_somewhere() -> None:
    root = DOCS.parent
    for page in (root / "README.md", *DOCS.rglob("*.md"), *(root / "deploy").glob("*.md"), *(root / "benchmarks").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
