"""Warnings that every client can cause."""

import logging

from alnnode.web.server import OnceAMinute


def test_equal_warnings_are_written_once_a_minute_and_errors_always(caplog) -> None:
    logger = logging.getLogger("test.warnings")
    logger.addFilter(OnceAMinute())
    with caplog.at_level(logging.WARNING, logger.name):
        for _ in range(20):
            logger.warning("Invalid HTTP request received.")
            logger.error("Exception in ASGI application")
        logger.warning("Unsupported upgrade request.")
    messages = [record.message for record in caplog.records]
    assert messages.count("Invalid HTTP request received.") == 1
    assert messages.count("Exception in ASGI application") == 20
    assert "Unsupported upgrade request." in messages
