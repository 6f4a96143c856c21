"""Tests of the settings see no variable of the environment that sets a key."""

import os

import pytest

from alnnode.settings import ENV_PREFIX


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
