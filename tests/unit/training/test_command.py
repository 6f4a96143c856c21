"""``python -m training``: its overview without any package of the extra, and what it says when one is missing."""

import subprocess
import sys
from importlib import import_module

import pytest
import typer
from typer.testing import CliRunner

from training.__main__ import COMMANDS, app

# The child process runs this first: an installation without the extra has none of these packages.
WITHOUT = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {absent!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ['training', *{words!r}]
import runpy
runpy.run_module('training', run_name='__main__', alter_sys=True)
"""
EXTRAS = {"torch", "monai", "sklearn", "matplotlib", "pyarrow", "nibabel", "numpy", "pydantic", "pydicom", "onnx"}


def training(*words: str, absent: set[str]) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(absent=absent, words=words)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_the_overview_needs_none_of_the_packages_that_training_needs() -> None:
    done = training("--help", absent=EXTRAS)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.split("Commands:\n")[1].splitlines() if line[:3].strip()] == list(COMMANDS)


@pytest.mark.parametrize("words", [["report"], ["cohort", "check"]])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(words) -> None:
    done = training(*words, absent={"torch", "matplotlib"})
    assert done.returncode == 1
    package = done.stderr.split()[2]
    assert package in {"torch", "matplotlib"}
    assert done.stderr == (
        f"The package {package} is not installed: run `pip install 'alnnode[train]'` (in a checkout: '.[train]').\n"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_what_the_command_says_itself(name) -> None:
    module, attribute, summary = COMMANDS[name]
    found = getattr(import_module(module), attribute)
    text = found.info.help if isinstance(found, typer.Typer) else found.__doc__
    assert text.splitlines()[0] == summary
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output


def test_a_command_that_does_not_exist_is_an_error_of_the_command_line() -> None:
    done = CliRunner().invoke(app, ["trian"])
    assert done.exit_code == 2
    assert "No such command" in done.output
