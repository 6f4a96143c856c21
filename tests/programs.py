"""Find programs of the system, even when a virtual environment is active.

pynetdicom installs programs with the names of DCMTK's (storescu, storescp, echoscu) beside Python, and an active environment puts them first.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

PROGRAMS = os.pathsep.join(
    place for place in os.get_exec_path() if Path(place).resolve() != Path(sys.executable).parent.resolve()
)


def system(name: str) -> str | None:
    """Return the path of a program of the system, or None."""
    return shutil.which(name, path=PROGRAMS)
