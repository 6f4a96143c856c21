"""The wall clock of the node's processes, which can be set; that of the machine stays as it is.

libfaketime would do, but with Python's ``time.sleep`` it fails where the monotonic clock is to stay (Debian's 0.9.10).
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
    """A library for ``LD_PRELOAD`` and the file that says by how much the clock is off.

    Attributes:
        settable: whether a process that was started so sees another time; without a C compiler none does.
        environment: of the processes whose clock this is.
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
        """Set it forward, or back."""
        self._seconds += seconds
        self._write()

    def _write(self) -> None:
        # In place: the processes hold this very file in their memory.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", self._seconds))

    def _is_seen(self) -> bool:
        self.move(HOUR)
        asked = subprocess.run(
            [sys.executable, "-c", ASK], env={**os.environ, **self.environment}, capture_output=True, text=True, check=True
        )
        self.move(-HOUR)
        return float(asked.stdout) - time.time() > HOUR / 2
