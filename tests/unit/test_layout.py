"""The shape of the code: imports point down, files and functions are short, and no module goes by its old name."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("alnnode", "workers", "training")
MOVES = ROOT / "docs" / "adr" / "0008-one-package-for-each-stage-of-a-study.md"
TEXTS = {"", ".py", ".md", ".toml", ".yml", ".yaml", ".service", ".html"}
# A name ends with its file's suffix or at the last part; a Markdown file that is called after a module is not the module.
NAMED = re.compile(r"(?<![\w./-])(?:alnnode|workers|training)(?:(?:/\w+)+\.py|(?:\.\w+)+)(?![\w.]*\.md)\b")
MEAN_LINES, MOST_LINES, MOST_FUNCTION_LINES = 150, 300, 60


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def copy(tmp_path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path in modules():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "planted", "complaint"),
    [
        (
            "alnnode/records/__init__.py",
            "from alnnode.imaging import window",
            "alnnode.records is not allowed to import alnnode.imaging",
        ),
        (
            "alnnode/deliver/__init__.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from alnnode.receive import header",
            "alnnode.deliver is not allowed to import alnnode.receive",
        ),
        ("training/data/__init__.py", "from training.fit import member", "training.data is not allowed to import training.fit"),
        ("alnnode/unplaced.py", "", "alnnode.unplaced"),
    ],
    ids=["import", "type-checking import", "training", "module in no layer"],
)
def test_a_planted_upward_import_is_found(copy, module, planted, complaint) -> None:
    path = copy / module
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + f"\n{planted}\n", encoding="utf-8")
    result = lint_imports(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert complaint in result.stdout


def imported(path: Path, known: set[str]) -> set[str]:
    """Return the modules that a module imports, also for type checkers only."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names} | {str(node.module) for node in nodes}
    return {name for name in names if name in known}


def test_no_module_is_in_a_cycle_of_imports() -> None:
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules() if path.name != "__init__.py"}
    TopologicalSorter({name: imported(path, set(paths)) for name, path in paths.items()}).prepare()


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {str(path): length for path, length in lengths.items() if length > MOST_LINES} == {}
    assert sum(lengths.values()) / len(lengths) < MEAN_LINES


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules()
        if "migrations" not in path.parts  # a migration is one list of tables, and is never changed
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MOST_FUNCTION_LINES
    ]
    assert long == []


def moved() -> list[str]:
    """Return the dotted names of modules that the table of moves calls old and that no module has now."""
    old = re.findall(r"^\| `([\w.]+)` \|", MOVES.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(old) > 100
    return [
        name
        for name in old
        if not (ROOT / f"{name.replace('.', '/')}.py").exists() and not (ROOT / name.replace(".", "/")).is_dir()
    ]


def named_modules(text: str) -> set[str]:
    """Return every dotted name and path of this project's modules in a text, and each package that holds them, as dotted names."""
    names = {match.removesuffix(".py").replace("/", ".") for match in NAMED.findall(text)}
    return {".".join(parts[:n]) for parts in (name.split(".") for name in names) for n in range(2, len(parts) + 1)}


def test_no_old_name_is_left() -> None:
    names = set(moved())
    assert named_modules("see `alnnode.old.thing`, docs/alnnode.old.md") == {"alnnode.old", "alnnode.old.thing"}
    assert "training.old.module" in named_modules("run training/old/module.py")
    folders = ("alnnode", "workers", "training", "tests", "docs", "deploy", "benchmarks")
    texts = [*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in texts
        if path.is_file() and path.suffix in TEXTS and path not in {MOVES, ROOT / "CHANGELOG.md"}
        for name in sorted(named_modules(path.read_text(encoding="utf-8")) & names)
    ]
    assert found == []
