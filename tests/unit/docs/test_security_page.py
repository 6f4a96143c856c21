"""docs/security.md names tests that exist, and says of the audit trail and the limits what the code says."""

import re
from pathlib import Path

from alnnode.audit import codes
from alnnode.receive.deflated import MAX_INFLATED

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 60
    assert named - defined == set()


def test_every_file_and_command_that_the_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make (\w+)", PAGE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for module in set(re.findall(r"python -m chaos\.(\w+)", PAGE)):
        assert (ROOT / "tests" / "chaos" / f"{module}.py").exists(), module
    for path in set(re.findall(r"`((?:tests|requirements)[\w./-]+)`", PAGE)):
        assert (ROOT / path).exists(), path


def test_every_audit_event_is_in_the_table() -> None:
    events = {code.value for name, code in vars(codes).items() if isinstance(code, codes.Code) and code.value in EVENTS}
    assert events == EVENTS
    assert {value for value in EVENTS if value in PAGE.split("## Audit trail")[1].split("\n## ")[0]} == EVENTS


EVENTS = {"110100", "110102", "110103", "110104", "110105", "110112", "110113", "110114"}


def test_the_limit_of_inflating_is_the_one_that_the_page_names() -> None:
    assert f"more than {MAX_INFLATED >> 30} GiB" in PAGE


def test_there_is_a_place_for_the_faults() -> None:
    assert "\n## Faults\n" in PAGE
