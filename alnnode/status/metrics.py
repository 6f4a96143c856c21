"""Answer ``/metrics`` for Prometheus: values from the database at the time of the request, and counters of this process."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alnnode.audit.outbox import AuditOutbox
from alnnode.db.pauses import ANALYSIS, destination_target
from alnnode.db.progress_tables import BINS
from alnnode.db.tables import DeliveryState, RequestState
from alnnode.db.tallies import SET_ASIDE
from alnnode.process import heartbeat
from alnnode.records import JobState
from alnnode.status.progress import PROBABILITY, STEP
from alnnode.worklist.ups import UpsState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Counter
    from prometheus_client.metrics_core import Metric
    from starlette.requests import Request

    from alnnode.db.pauses import Pauses
    from alnnode.receive.rejected_associations import RejectedAssociations
    from alnnode.settings import Settings
    from alnnode.status.overview import Overview
    from alnnode.status.progress import WorkProgress
    from alnnode.worklist.worklist import Worklist

_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300)  # seconds


@dataclass(frozen=True, slots=True)
class MetricSources:
    """What the metrics are read from at the time of a request."""

    overview: Overview
    progress: WorkProgress
    worklist: Worklist
    rejections: RejectedAssociations
    pauses: Pauses


class Metrics:
    """The registry of one process. Labels never contain UIDs or other data of a patient."""

    def __init__(self, settings: Settings, sources: MetricSources, stow_objects: Counter) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Collector(settings, sources))
        self.registry.register(stow_objects)
        self.request_seconds = Histogram(
            "alnnode_http_request_seconds",
            "Time to answer HTTP requests",
            ["route", "method", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )


class _Collector:
    """Reads the database and the disk whenever Prometheus requests the metrics."""

    def __init__(self, settings: Settings, sources: MetricSources) -> None:
        self._settings, self._overview, self._progress = settings, sources.overview, sources.progress
        self._worklist, self._rejections, self._pauses = sources.worklist, sources.rejections, sources.pauses

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics that are not counted in this process."""
        yield from self._jobs()
        yield from self._deliveries()
        yield self._commitment_requests()
        free = shutil.disk_usage(self._settings.node.data_dir).free
        yield GaugeMetricFamily("alnnode_disk_free_bytes", "Free space at the data directory", free)
        yield self._heartbeats()
        yield from self._audit()
        yield self._steps()
        yield self._probabilities()
        yield self._gpu_memory()
        yield self._workitems()
        yield self._rejected_associations()
        yield self._set_aside()
        yield self._paused()

    def _jobs(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("alnnode_jobs", "Jobs by state", labels=["state"])
        counts = self._overview.states()
        for state in JobState:
            states.add_metric([state.value], counts.get(state, 0))
        yield states
        held = self._overview.held()
        yield GaugeMetricFamily("alnnode_instances_held", "Received objects in the spool", held.instances)
        yield GaugeMetricFamily("alnnode_instances_held_bytes", "Bytes of received objects in the spool", held.size)
        age = GaugeMetricFamily("alnnode_oldest_job_seconds", "Age of the oldest job that has not ended", labels=["state"])
        for state, seconds in self._overview.oldest().items():
            age.add_metric([state.value], seconds)
        yield age
        stages = GaugeMetricFamily(
            "alnnode_stage_seconds", "Time per stage of the jobs that ended in the last hour", labels=["stage", "quantile"]
        )
        for stage, quantiles in self._overview.stages().items():
            for quantile, seconds in quantiles.items():
                stages.add_metric([stage, str(quantile)], seconds)
        yield stages

    def _deliveries(self) -> Iterator[Metric]:
        deliveries = GaugeMetricFamily(
            "alnnode_deliveries", "Deliveries by destination and state", labels=["destination", "state"]
        )
        for row in self._overview.destinations():
            amounts = (row.pending, row.committing, row.sent, row.failed)
            for state, amount in zip(DeliveryState, amounts, strict=True):
                deliveries.add_metric([row.name, state.value], amount)
        yield deliveries

    def _commitment_requests(self) -> Metric:
        requests = GaugeMetricFamily(
            "alnnode_commitment_requests", "Storage commitment requests of senders by state", labels=["state"]
        )
        counts = self._overview.commitment_requests()
        for state in RequestState:
            requests.add_metric([state.value], counts.get(state, 0))
        return requests

    def _heartbeats(self) -> Metric:
        beats = GaugeMetricFamily("alnnode_worker_heartbeat_seconds", "Time since the last heartbeat", labels=["worker"])
        for worker, seconds in heartbeat.ages(self._settings.node.data_dir).items():
            beats.add_metric([worker], seconds)
        return beats

    def _audit(self) -> Iterator[Metric]:
        if self._settings.audit.kind == "off":
            return
        waiting = AuditOutbox(self._settings.node.data_dir.resolve(), self._settings.internal.audit_messages)
        yield GaugeMetricFamily("alnnode_audit_waiting", "Audit messages that are not sent yet", waiting.count())
        yield GaugeMetricFamily("alnnode_audit_lost", "Audit messages lost since the node was set up", waiting.lost())

    def _steps(self) -> Metric:
        steps = SummaryMetricFamily("alnnode_step_seconds", "Time per step of the analyses", labels=["step"])
        for tally in self._progress.tallies(STEP):
            steps.add_metric([tally.label], tally.count, tally.total)
        return steps

    def _probabilities(self) -> Metric:
        """Return the distribution of probabilities by bundle; `alnnode.notify.drift` compares the recent ones with the first ones."""
        family = HistogramMetricFamily("alnnode_node_probability", "Probability of metastasis per node", labels=["bundle"])
        tallies = self._progress.tallies(PROBABILITY)
        for bundle in sorted({tally.label for tally in tallies}):
            own = {tally.bin: tally for tally in tallies if tally.label == bundle}
            sums = list(accumulate(own[number].count if number in own else 0 for number in range(BINS)))
            buckets = [(str((number + 1) / BINS), count) for number, count in enumerate(sums)]
            family.add_metric([bundle[:12]], [*buckets, ("+Inf", sums[-1])], sum(tally.total for tally in own.values()))
        return family

    def _gpu_memory(self) -> Metric:
        memory = GaugeMetricFamily(
            "alnnode_gpu_memory_bytes", "GPU memory of workers: total, and peak allocation", labels=["worker", "kind"]
        )
        for worker, values in heartbeat.read_values(self._settings.node.data_dir).items():
            for kind, value in values.items():
                memory.add_metric([worker, kind], value)
        return memory

    def _workitems(self) -> Metric:
        workitems = GaugeMetricFamily("alnnode_workitems", "Workitems of the worklist by state", labels=["state"])
        counts = self._worklist.counts()
        for state in UpsState:
            workitems.add_metric([state.value], counts.get(state, 0))
        return workitems

    def _rejected_associations(self) -> Metric:
        rejected = CounterMetricFamily(
            "alnnode_rejected_associations", "Associations that the listener did not serve", labels=["reason"]
        )
        for kind, count in self._rejections.totals().items():
            rejected.add_metric([kind.value], count)
        return rejected

    def _set_aside(self) -> Metric:
        aside = CounterMetricFamily(
            "alnnode_objects_set_aside", "Objects that the node set aside for a person to check", labels=["reason"]
        )
        for tally in self._progress.tallies(SET_ASIDE):
            aside.add_metric([tally.label], tally.count)
        return aside

    def _paused(self) -> Metric:
        """Return 1 for everything that is paused; the analysis is always listed, so that a resumed one is 0."""
        paused = GaugeMetricFamily("alnnode_paused", "Whether the analysis or a destination is paused", labels=["target"])
        present = self._pauses.all()
        for target in sorted({ANALYSIS, *map(destination_target, (one.name for one in self._settings.destinations)), *present}):
            paused.add_metric([target], int(target in present))
        return paused


async def metrics(request: Request) -> Response:
    """Answer ``GET /metrics`` in the text format of Prometheus."""
    registry = request.app.state.status.metrics.registry
    try:
        text = await run_in_threadpool(generate_latest, registry)
    except (SQLAlchemyError, OSError) as error:
        return PlainTextResponse(f"the metrics cannot be read ({type(error).__name__}); try again later", 503)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
