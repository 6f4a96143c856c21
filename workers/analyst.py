"""The analysis itself: the files of a series become result objects, by the networks of the model bundle."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from alnnode.model import bundle as bundles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from alnnode.model.bundle import Bundle
    from alnnode.pipeline import Models
    from alnnode.records import Analysis, ReportContext, ResultObject
    from alnnode.settings import Analysis as AnalysisSettings


class Analyst(Protocol):
    """Turns the files of a series into result objects."""

    @property
    def digest(self) -> str:
        """sha256 (hex) of the bundle."""

    @property
    def arithmetic(self) -> str:
        """A text that stands for the device, which decides the last bits of a result beside input and weights.

        It changes when the device runs out of memory, because the batches are smaller from then on.
        """

    def analyse(
        self, paths: Sequence[Path], context: ReportContext, progress: Callable[[str], None], marks: Sequence[Path] = ()
    ) -> tuple[list[ResultObject], str | None]:
        """Return the result objects, and the reason when they only say that the series cannot be analysed.

        Raises:
            NotAnalysable: no header could be read, so that no report can be made.
            ReportError: the result objects could not be built.
        """


class ModelAnalyst:
    """Analyses with the networks of a bundle, which it loads on first use."""

    def __init__(self, settings: AnalysisSettings, observe: Callable[[Analysis], None]) -> None:
        self._settings, self._observe = settings, observe
        self._lock = threading.Lock()  # several series may be the first of this process
        self._bundle: Bundle | None = None  # None after its networks are loaded, because it holds all bytes of its files
        self._digest: str | None = None
        self._loaded: Models | None = None

    @property
    def digest(self) -> str:
        """sha256 (hex) of the bundle, known before its networks are loaded: if the loading fails, only the job fails."""
        with self._lock:
            if self._digest is None:
                self._digest = self._opened().digest
            return self._digest

    @property
    def arithmetic(self) -> str:
        """See `Analyst.arithmetic`; loads the networks."""
        with self._lock:  # the first answer runs the networks
            return self._load().arithmetic

    def analyse(
        self, paths: Sequence[Path], context: ReportContext, progress: Callable[[str], None], marks: Sequence[Path] = ()
    ) -> tuple[list[ResultObject], str | None]:
        """See `Analyst.analyse`."""
        from alnnode import pipeline, report  # noqa: PLC0415 - only the process that analyses loads torch
        from alnnode.locate.marks.reading import read_marks  # noqa: PLC0415

        series = pipeline.SeriesInput(paths, [read_marks(path) for path in marks], context.prior)
        with self._lock:
            models = self._load()
        analysis = pipeline.analyse(series, models, self._settings, progress)
        self._observe(analysis)
        progress("report")
        return report.build(analysis, context), analysis.not_analysed

    def _opened(self) -> Bundle:
        if self._bundle is None:
            self._bundle = bundles.load(bundles.resolve(self._settings.bundle))
        return self._bundle

    def _load(self) -> Models:
        if self._loaded is None:
            import torch  # noqa: PLC0415

            from alnnode.pipeline import Models  # noqa: PLC0415
            from alnnode.report import standard_tables  # noqa: PLC0415

            if self._settings.threads:
                torch.set_num_threads(self._settings.threads)
            bundle = self._opened()
            self._loaded = Models.load(bundle, self._settings.device)
            standard_tables.load()
            self._bundle, self._digest = None, bundle.digest
        return self._loaded
