"""The tables of the standard in highdicom: which attributes each IOD has. highdicom reads them, 22 MB of JSON, on first use."""

from __future__ import annotations

import numpy as np
from highdicom.sr import GraphicTypeValues, ImageRegion, SourceImageForRegion
from pydicom.uid import CTImageStorage


def load() -> None:
    """Load the tables now, once in a process, so that no job waits for them, and before images fill the memory."""
    # highdicom has no public function that loads them. A region checks in them whether its image may have several frames.
    ImageRegion(GraphicTypeValues.POINT, np.zeros((1, 2)), SourceImageForRegion(CTImageStorage, "2.25.1"))
