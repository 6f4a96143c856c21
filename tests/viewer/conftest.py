"""A browser, and a phantom study with what the node makes of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import viewers as ohif


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "no Chromium: apt install chromium"
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium, headless=True, args=ohif.CHROMIUM)
        yield started
        started.close()


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> tuple[Path, Path]:
    """A phantom study and what the node makes of it with the demonstration model."""
    folder = tmp_path_factory.mktemp("phantom")
    config = folder / "config.toml"
    config.write_text('[report]\nkinds = ["seg"]\n', encoding="utf-8")
    alnnode = [sys.executable, "-m", "alnnode"]
    subprocess.run([*alnnode, "phantom", str(folder / "in"), "--patients", "1", "--seed", "3"], check=True, capture_output=True)
    subprocess.run(
        [*alnnode, "analyse", str(folder / "in"), "--out", str(folder / "out"), "--config", str(config)],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "in", folder / "out"
