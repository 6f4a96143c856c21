"""Keep pynetdicom and pydicom from logging what arrives over the network: their warnings quote values, their tracebacks hold bytes."""

from __future__ import annotations

import logging
import warnings

from pydicom.config import IGNORE
from pydicom.config import settings as pydicom_settings
from pynetdicom import _config


def silence_libraries() -> None:
    """Turn off log records, warnings and validation messages of both libraries, for the whole process."""
    _config.LOG_HANDLER_LEVEL = "none"  # no handlers that format every PDU
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    pydicom_settings.reading_validation_mode = IGNORE
