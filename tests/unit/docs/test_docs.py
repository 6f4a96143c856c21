"""The conformance statement and the code say the same."""

import re
from pathlib import Path

from alnnode.receive.dimse_status import Status
from alnnode.receive.presentation_contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES

DOCS = Path(__file__).parents[3] / "docs"


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
    for page in (*root.glob("*.md"), *DOCS.rglob("*.md"), *(root / "deploy").glob("*.md"), *(root / "benchmarks").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def code() -> str:
    root = DOCS.parent
    return "\n".join(
        path.read_text(encoding="utf-8") for room in ("alnnode", "workers") for path in (root / room).rglob("*.py")
    )


def rows(title: str) -> list[str]:
    """First column of the tables of a section of the operations manual."""
    text = (DOCS / "operations.md").read_text(encoding="utf-8").split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return [line.split("|")[1] for line in text.splitlines() if line.startswith("| ") and not line.startswith("|---")]


def test_the_operations_manual_explains_each_warning_and_no_other() -> None:
    events = set(re.findall(r'log\.(?:warning|error|exception|critical)\(\s*"(\w+)"', code()))
    events |= set(re.findall(r'"(\w+_trouble)"', code()))  # one function of the worker logs several
    assert len(events) > 20
    assert {name for row in rows("Log events") for name in re.findall(r"`(\w+)`", row)} == events


def test_the_operations_manual_names_the_metrics_that_there_are() -> None:
    metrics = set(re.findall(r'(?:GaugeMetricFamily|CounterMetricFamily|Counter|Histogram)\(\s*"(\w+)"', code()))
    assert len(metrics) > 8
    assert {name for row in rows("Monitoring") for name in re.findall(r"`(alnnode_\w+)`", row)} == metrics


def test_the_operations_manual_quotes_reasons_and_checks_that_there_are() -> None:
    text = code()
    reasons = [words for row in rows("Failed jobs") for words in re.findall(r'"([^"…]+)"', row)]
    assert len(reasons) > 12
    assert [words for words in reasons if words not in text] == []
    checks = {name for row in rows("Monitoring") for name in re.findall(r"`([a-z-]+)`", row)}
    assert checks == {"database", "broker", "disk", "bundle", "worker-analyse", "worker-deliver"}


def test_the_operations_manual_names_settings_that_there_are() -> None:
    text, example = (
        (DOCS / "operations.md").read_text(encoding="utf-8"),
        (DOCS.parent / "config.example.toml").read_text(encoding="utf-8"),
    )
    keys = set(re.findall(r"`(?:\[+[a-z.]+\]+ )?([a-z]+(?:_[a-z]+)+)`", text)) - set(re.findall(r'"(\w+)"', code()))
    assert [key for key in keys if not re.search(rf"^(# )?{key} = |{key} = ", example, re.MULTILINE)] == []
