"""Structured logging to standard error: ids and digests, never patient data.

The text of a library's exception or warning may quote a value of an object, and at level info or debug libraries log SQL parameters, HTTP
headers and data sets. Therefore libraries log warnings and errors only, and an exception is logged by its class and place, without its text.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import structlog

from alnnode.errors import AlnnodeError

if TYPE_CHECKING:
    from types import TracebackType

    from alnnode.settings import Logging

OWN = ("alnnode", "workers")
SILENT = ("pynetdicom", "pydicom", "highdicom")  # even their errors quote values
FRAMES = 6  # innermost frames of an exception that are logged

log = structlog.get_logger()


def configure(settings: Logging, *also: structlog.typing.Processor) -> None:
    """Log structlog events, the loggers of the standard library and uncaught exceptions to standard error, in one format.

    Args:
        settings: level and format.
        also: processors that see each event of the node before it is written.
    """
    level = getattr(logging, settings.level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _exceptions,
    ]
    final: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if settings.format == "console":
        final = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, *also, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, final]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    for name in OWN:
        logging.getLogger(name).setLevel(level)
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    warnings.showwarning = _warning


def where(error: BaseException) -> list[str]:
    """Return the innermost frames of an exception as "file:line function", without its text or any value."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames]


def _exceptions(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace a traceback by the classes and places of its exceptions. The text of the node's own exceptions has no patient data and stays."""
    info = event.pop("exc_info", None)
    event.pop("stack_info", None)
    error = info[1] if isinstance(info, tuple) else info if isinstance(info, BaseException) else None
    if info is True:
        error = sys.exception()
    chain: list[dict[str, object]] = []
    while error is not None and len(chain) < FRAMES:
        text = {"words": str(error)} if isinstance(error, AlnnodeError) else {}
        chain.append({"error": type(error).__name__, **text, "where": where(error)})
        group = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = group or error.__cause__ or error.__context__
    return {**event, "exceptions": chain} if chain else event


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.error("uncaught", exc_info=(kind, error, trace))


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    name = arguments.thread.name if arguments.thread else None
    log.error("uncaught", thread=name, exc_info=arguments.exc_value)


def _warning(
    message: Warning | str,  # noqa: ARG001 - the name is that of warnings.showwarning; its text may quote a value
    category: type[Warning],
    filename: str,
    lineno: int,
    *_rest: Any,
    **_named: Any,
) -> None:
    log.debug("warning", category=category.__name__, where=f"{filename.rsplit('/', 1)[-1]}:{lineno}")
