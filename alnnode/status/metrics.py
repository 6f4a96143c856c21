"""``/metrics`` for Prometheus: what the database says at the moment of the question, and what this process counted."""

from __future__ import annotations

import shutil
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alnnode.audit.outbox import AuditOutbox
from alnnode.db.tables import DeliveryState, RequestState
from alnnode.process import heartbeat
from alnnode.records import JobState
from alnnode.status.progress import BINS, PROBABILITY, STEP
from alnnode.worklist.ups import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric
    from starlette.requests import Request

    from alnnode.settings import Settings
    from alnnode.status.overview import Overview
    from alnnode.status.progress import WorkProgress
    from alnnode.worklist.worklist import Worklist

_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300)


class Metrics:
    """The registry of one process. Labels never hold UIDs or anything else of a patient."""

    def __init__(self, settings: Settings, overview: Overview, figures: WorkProgress, worklist: Worklist) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Collector(settings, overview, figures, worklist))
        self.stored = Counter("alnnode_stow_objects", "Objects received by STOW-RS", ["outcome"], registry=self.registry)
        self.seconds = Histogram(
            "alnnode_http_request_seconds",
            "Time to answer HTTP requests",
            ["route", "method", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )


class _Collector:
    def __init__(self, settings: Settings, overview: Overview, figures: WorkProgress, worklist: Worklist) -> None:
        self._settings, self._overview, self._figures, self._worklist = settings, overview, figures, worklist

    def collect(self) -> Iterator[Metric]:
        """Ask the database and the disk."""
        states = GaugeMetricFamily("alnnode_jobs", "Jobs by state", labels=["state"])
        counts = self._overview.states()
        for state in JobState:
            states.add_metric([state.value], counts.get(state, 0))
        yield states
        held = self._overview.held()
        yield GaugeMetricFamily("alnnode_instances_held", "Received objects in the spool", held.instances)
        yield GaugeMetricFamily("alnnode_instances_held_bytes", "Bytes of received objects in the spool", held.size)
        age = GaugeMetricFamily("alnnode_oldest_job_seconds", "Age of the oldest job that is not at its end", labels=["state"])
        for state, seconds in self._overview.oldest().items():
            age.add_metric([state.value], seconds)
        yield age
        stages = GaugeMetricFamily(
            "alnnode_stage_seconds", "Time per stage, jobs ended in the last hour", labels=["stage", "quantile"]
        )
        for stage, quantiles in self._overview.stages().items():
            for quantile, seconds in quantiles.items():
                stages.add_metric([stage, str(quantile)], seconds)
        yield stages
        deliveries = GaugeMetricFamily(
            "alnnode_deliveries", "Deliveries by destination and state", labels=["destination", "state"]
        )
        for row in self._overview.destinations():
            amounts = (row.pending, row.committing, row.sent, row.failed)
            for step, amount in zip(DeliveryState, amounts, strict=True):
                deliveries.add_metric([row.name, step.value], amount)
        yield deliveries
        requests = GaugeMetricFamily(
            "alnnode_commitment_requests", "Storage commitment requests of senders by state", labels=["state"]
        )
        asked = self._overview.commitment_requests()
        for stage in RequestState:
            requests.add_metric([stage.value], asked.get(stage, 0))
        yield requests
        free = shutil.disk_usage(self._settings.node.data_dir).free
        yield GaugeMetricFamily("alnnode_disk_free_bytes", "Free space at the data directory", free)
        beats = GaugeMetricFamily("alnnode_worker_heartbeat_seconds", "Age of the last sign of life", labels=["worker"])
        for worker, seconds in heartbeat.ages(self._settings.node.data_dir).items():
            beats.add_metric([worker], seconds)
        yield beats
        if self._settings.audit.kind != "off":
            waiting = AuditOutbox(self._settings.node.data_dir.resolve(), self._settings.internal.audit_messages)
            yield GaugeMetricFamily("alnnode_audit_waiting", "Audit messages that were not sent yet", waiting.count())
            yield GaugeMetricFamily(
                "alnnode_audit_lost", "Audit messages that were lost since the node was set up", waiting.lost()
            )
        yield from self._work()

    def _work(self) -> Iterator[Metric]:
        steps = SummaryMetricFamily("alnnode_step_seconds", "Time per step of the analyses", labels=["step"])
        for tally in self._figures.tallies(STEP):
            steps.add_metric([tally.label], tally.count, tally.total)
        yield steps
        yield from self._probabilities()
        memory = GaugeMetricFamily(
            "alnnode_gpu_memory_bytes", "GPU memory of workers: total, and peak held", labels=["worker", "kind"]
        )
        for worker, figures in heartbeat.read_values(self._settings.node.data_dir).items():
            for kind, value in figures.items():
                memory.add_metric([worker, kind], value)
        yield memory
        workitems = GaugeMetricFamily("alnnode_workitems", "Workitems of the worklist by state", labels=["state"])
        counts = self._worklist.counts()
        for state in State:
            workitems.add_metric([state.value], counts.get(state, 0))
        yield workitems

    def _probabilities(self) -> Iterator[Metric]:
        """Yield the distribution by bundle: what it was at first, or on a reference set, is what drift is measured against."""
        family = HistogramMetricFamily("alnnode_node_probability", "Probability of metastasis per node", labels=["bundle"])
        tallies = self._figures.tallies(PROBABILITY)
        for bundle in sorted({tally.label for tally in tallies}):
            own = {tally.bin: tally for tally in tallies if tally.label == bundle}
            sums = list(accumulate(own[number].count if number in own else 0 for number in range(BINS)))
            buckets = [(str((number + 1) / BINS), count) for number, count in enumerate(sums)]
            family.add_metric([bundle[:12]], [*buckets, ("+Inf", sums[-1])], sum(tally.total for tally in own.values()))
        yield family


async def metrics(request: Request) -> Response:
    """Answer in the text format."""
    registry = request.app.state.metrics.registry
    try:
        text = await run_in_threadpool(generate_latest, registry)
    except (SQLAlchemyError, OSError) as error:
        return PlainTextResponse(f"cannot be read now ({type(error).__name__})", 503)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
