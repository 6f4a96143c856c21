"""Set the wall clock of the node's processes without changing the clock of the machine.

libfaketime 0.9.10 (Debian) cannot be used: Python's ``time.sleep`` fails with it if the monotonic clock is not changed.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = Path(__file__).with_name("clock.c")
HOUR = 3600  # seconds
ASK = "import time; print(time.time())"


class Clock:
    """A library for ``LD_PRELOAD``, and a file with the offset of the clock.

    Attributes:
        settable: whether processes with `environment` see the offset; it is False without a C compiler.
        environment: variables for the processes of the node.
    """

    def __init__(self, folder: Path) -> None:
        self._file, library = folder / "clock", folder / "clock.so"
        self._seconds = 0
        self._write()
        self.environment: Mapping[str, str] = {}
        compiler = shutil.which("cc")
        built = compiler and subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE], capture_output=True, check=False
        )
        if built and built.returncode == 0:
            self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._file)}
        self.settable = self._is_seen()
        if not self.settable:
            self.environment = {}

    def move(self, seconds: int) -> None:
        """Set the clock forward, or back if ``seconds`` is negative."""
        self._seconds += seconds
        self._write()

    def _write(self) -> None:
        # The file is written in place, because the processes have mapped it into their memory.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", self._seconds))

    def _is_seen(self) -> bool:
        self.move(HOUR)
        process = subprocess.run(
            [sys.executable, "-c", ASK], env={**os.environ, **self.environment}, capture_output=True, text=True, check=True
        )
        self.move(-HOUR)
        return float(process.stdout) - time.time() > HOUR / 2
