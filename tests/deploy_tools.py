"""What the checks of deploy/ share: where their tools are, and the node's own check of settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

from alnnode.errors import SettingsError
from alnnode.settings import load

TOOLS = Path(__file__).parents[1] / ".deploy-tools"  # `make deploy-tools` fills it


class MissingToolError(Exception):
    """A tool is not here, so that a file cannot be checked."""


def tool(name: str) -> str:
    """Return the path of a program, installed or unpacked."""
    places = [
        shutil.which(name),
        *sorted(str(path) for path in TOOLS.glob(f"usr/*bin/{name}")),
        TOOLS / "python" / "bin" / name,
    ]
    for place in places:
        if place is not None and Path(place).is_file() and _runs(str(place)):
            return str(place)
    raise MissingToolError(name)


def _runs(program: str) -> bool:
    """Return whether a program starts: one that was only unpacked may lack a library."""
    argument = "-v" if program.endswith("haproxy") else "--version"
    return subprocess.run([program, argument], capture_output=True, check=False, timeout=60).returncode == 0


def output_if_refused(command: list[str], folder: Path | None = None) -> list[str]:
    """Run a check; return its output when it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    return [done.stdout + done.stderr] if done.returncode else []


def settings_faults(text: str, environment: dict[str, str]) -> list[str]:
    """Return what the node finds wrong with its settings."""
    wanted = ("ALNNODE__DATABASE__URL", "ALNNODE__BROKER__URL")
    missing = [f"the secrets do not set {name}" for name in wanted if name not in environment]
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, environment):
        path = Path(folder, "config.toml")
        path.write_text(text, encoding="utf-8")
        try:
            settings = load(path)
        except SettingsError as error:
            return [str(error)]
    if settings.database.url.partition(":")[0] != "postgresql+psycopg":
        missing.append("the database is not PostgreSQL")
    unset = [token.env for token in settings.web.tokens if token.env and token.env not in environment]
    return [*missing, *(f"the secrets do not set {name}" for name in unset)]
