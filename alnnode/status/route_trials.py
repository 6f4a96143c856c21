"""Try routes on series for the status page, in limited time and memory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from alnnode.errors import ServiceError, SettingsError
from alnnode.process.request_processes import LostProcessError, RequestProcesses
from alnnode.status.route_trial_process import LIMITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.db.rows import SeriesFacts
    from alnnode.settings import Route

MAX_TEXT = 8000  # characters of routes to try
_MOST = 2  # trials at the same time


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What the routes make of one series.

    Attributes:
        unwanted: why no route selects the series; None when one does.
        reasons: name of each route, and the condition that does not hold; None when all hold.
    """

    unwanted: str | None
    reasons: tuple[tuple[str, str | None], ...]

    @property
    def takers(self) -> tuple[str, ...]:
        """Return the names of the routes whose conditions hold."""
        return tuple(name for name, reason in self.reasons if reason is None)


class RouteTrials:
    """Tries routes in child processes. Threads may share an instance."""

    def __init__(self) -> None:
        self._processes = RequestProcesses("alnnode.status.route_trial_process", _MOST)

    def of_routes(self, routes: Sequence[Route], series: Sequence[SeriesFacts]) -> tuple[TrialOutcome, ...]:
        """Return what routes make of each series.

        Raises:
            SettingsError: this takes too much time or memory.
        """
        return self._ask(None, [route.model_dump(mode="json") for route in routes], series)

    def of_text(self, text: str, series: Sequence[SeriesFacts]) -> tuple[TrialOutcome, ...]:
        """Return what the ``[[routes]]`` in a text make of each series.

        Raises:
            SettingsError: the text has an error, or this takes too much time or memory.
        """
        if len(text) > MAX_TEXT:
            raise SettingsError(f"the text has more than {MAX_TEXT} characters; try fewer routes")
        return self._ask(text, [], series)

    def close(self) -> None:
        """End the processes."""
        self._processes.close()

    def _ask(self, text: str | None, routes: list[object], series: Sequence[SeriesFacts]) -> tuple[TrialOutcome, ...]:
        request = {"text": text, "routes": routes, "series": [asdict(facts) for facts in series]}
        try:
            answer = json.loads(self._processes.ask([json.dumps(request).encode()]))
        except LostProcessError:
            raise SettingsError(
                f"the routes were not tried: this takes more than {LIMITS.seconds} s or {LIMITS.memory >> 20} MiB of memory; "
                "simplify the regular expressions, or try fewer routes"
            ) from None
        except ServiceError as error:
            raise SettingsError(f"the routes were not tried: {error}") from error
        if "error" in answer:
            raise SettingsError(answer["error"])
        return tuple(
            TrialOutcome(one["unwanted"], tuple((name, reason) for name, reason in one["reasons"]))
            for one in answer["outcomes"]
        )
