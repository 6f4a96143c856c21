"""What every test leaves as it found it."""

import logging

import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_as_before():
    """A command run in this process sets up logging on a stream that pytest closes; later tests would log into it."""
    root = logging.getLogger()
    handlers, level, configured = list(root.handlers), root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configured)
