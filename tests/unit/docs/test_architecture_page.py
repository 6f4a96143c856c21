"""The page on the architecture names packages, files and entry points that exist."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`[^|]+) \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE)


def packages(cell: str) -> list[str]:
    return re.findall(r"`([\w_]+)`", cell)


def test_every_package_is_in_the_table_and_in_the_order_of_the_layers() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
    layers = [name for layer in contract["layers"] for name in re.split(r" [|:] ", layer) if name != "__main__"]
    named = [name for cell, _ in ROWS for name in packages(cell)]
    assert set(named) == {*layers, "workers", "training"}


def test_every_entry_point_exists() -> None:
    missing = []
    for cell, entries in ROWS:
        folder = ROOT / "alnnode" / packages(cell)[0]
        if packages(cell)[0] in {"workers", "training"}:
            folder = ROOT / packages(cell)[0]
        sources = "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py")) if folder.is_dir() else ""
        sources += (folder.with_suffix(".py")).read_text(encoding="utf-8") if folder.with_suffix(".py").exists() else ""
        for entry in re.findall(r"`([^`]+)`", entries):
            for name in re.findall(r"\b([A-Za-z_]{4,})\b", entry.replace("\\|", " ")):
                known = name in sources or any(path.stem == name for path in folder.rglob("*"))
                if not known and name not in {"python", "data", "request", "list"}:
                    missing.append(f"{packages(cell)[0]}: {name}")
    assert missing == []


def test_every_file_that_the_page_names_exists() -> None:
    named = re.findall(r"`((?:alnnode/|tests/|docs/|report/|objects/|settings/|deliver/|receive/)[\w/]+\.(?:py|md))`", PAGE)
    assert named
    places = [ROOT, ROOT / "alnnode", ROOT / "alnnode" / "report"]
    assert [name for name in named if not any((place / name).exists() for place in places)] == []
