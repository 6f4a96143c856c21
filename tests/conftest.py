"""What every test leaves as it found it, and what ran on what."""

import logging

import pytest
import structlog

SERVICES = ("sqlite", "postgres", "redis", "dcmtk")


def pytest_terminal_summary(terminalreporter):
    """Say how many tests ran on each service: a suite that skipped them all must not look like one that passed."""

    def count(outcome, service):
        # A module that is skipped as a whole has a report without keywords.
        reports = [report for report in terminalreporter.stats.get(outcome, []) if hasattr(report, "keywords")]
        return sum(service in report.keywords and (outcome == "skipped" or report.when == "call") for report in reports)

    names = {"sqlite": "SQLite", "postgres": "PostgreSQL", "redis": "Redis", "dcmtk": "DCMTK"}
    parts = []
    for service in SERVICES:
        ran, skipped = count("passed", service) + count("failed", service), count("skipped", service)
        parts.append(f"{names[service]} {ran}" + (f" ({skipped} SKIPPED)" if skipped else ""))
    terminalreporter.write_line("tests that ran on real services: " + ", ".join(parts))


@pytest.fixture(autouse=True)
def logging_as_before():
    """A command run in this process sets up logging on a stream that pytest closes; later tests would log into it."""
    root = logging.getLogger()
    handlers, level, configured = list(root.handlers), root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configured)
