"""The wheel that people install works like the checkout."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from alnnode import __version__
from alnnode.model import bundle

ROOT = Path(__file__).parents[2]

# The child process runs this first: an installation without the [worker] extra has none of these packages.
WITHOUT_EXTRAS = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {'torch', 'torchvision', 'monai', 'pytorch_grad_cam', 'safetensors', 'skimage', 'sklearn'}:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel in a folder that Python searches before the checkout."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_installed(installed: Path, code: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ALNNODE_")} | {
        "PYTHONPATH": str(installed)
    }
    command = [sys.executable, "-P", "-c", code, *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_wheel_holds_the_packages_the_bundle_and_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert tops == {"alnnode", "workers", "training"}
    for needed in ("alnnode/py.typed", "alnnode/model/demo/manifest.json", "alnnode/db/migrations/env.py"):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".pt", ".pth", ".pkl", ".pickle"))]


def test_a_listener_needs_no_torch(installed: Path, tmp_path: Path) -> None:
    code = WITHOUT_EXTRAS + (
        "import alnnode, alnnode.cli.app, alnnode.node.supervisor, alnnode.receive.scp, alnnode.node.sweep, alnnode.task_queue\n"
        "print(alnnode.__file__)"
    )
    done = run_installed(installed, code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_migrate_and_jobs_work_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    for command in ("migrate", "jobs --json"):
        code = WITHOUT_EXTRAS + f"sys.argv = ['alnnode', *{command.split()!r}]\nfrom alnnode.cli.app import main\nmain()"
        done = run_installed(installed, code, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment in which pip installed the wheel; its dependencies are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--no-compile", str(wheel)], check=True, timeout=120)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder


def run_command(environment: Path, *words: str, cwd: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ALNNODE_", "PYTHON"))}
    kept["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"  # the shell above the tests can be one that Typer does not know
    command = [str(environment / "bin" / "alnnode"), *words]
    done = subprocess.run(
        command, cwd=cwd, env=kept, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pip_installs_the_command_with_the_demonstration_model(environment: Path, tmp_path: Path) -> None:
    assert run_command(environment, "--version", cwd=tmp_path) == f"alnnode {__version__}\n"
    assert "complete" in run_command(environment, "--show-completion", "bash", cwd=tmp_path)
    assert "Wrote config.toml." in run_command(environment, "init", "--no-test", cwd=tmp_path)
    code = (
        "import alnnode; from alnnode.model import bundle; print(alnnode.__file__, bundle.load(bundle.resolve('demo')).digest)"
    )
    command = [str(environment / "bin" / "python"), "-c", code]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ALNNODE_", "PYTHON"))}
    done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=120, check=True)
    file, digest = done.stdout.split()
    assert Path(file).is_relative_to(environment)
    assert digest == bundle.load(bundle.resolve("demo")).digest


def test_the_extras_of_the_wheel_name_what_the_documentation_says(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))).decode()
    extras = set(re.findall(r"^Provides-Extra: (\S+)$", metadata, re.MULTILINE))
    assert {"worker", "train", "onnx", "lidc"} <= extras
    assert re.search(r"^Requires-Dist: torch.*extra == .worker.$", metadata, re.MULTILINE)
    assert not re.search(r"^Requires-Dist: torch[^;]*$", metadata, re.MULTILINE), "a listener needs no torch"


def test_only_alnnode_owns_the_name_workers() -> None:
    from importlib.metadata import packages_distributions

    assert set(packages_distributions().get("workers", ["alnnode"])) == {"alnnode"}
