"""``/metrics`` for Prometheus: what the database says at the moment of the question, and what this process counted."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alnnode import heartbeat
from alnnode.records import JobState
from alnnode.store.tables import DeliveryState, RequestState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric
    from starlette.requests import Request

    from alnnode.settings import Settings
    from alnnode.store.overview import Overview

_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300)


class Metrics:
    """The registry of one process. Labels never hold UIDs or anything else of a patient."""

    def __init__(self, settings: Settings, overview: Overview) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Collector(settings, overview))
        self.stored = Counter("alnnode_stow_objects", "Objects received by STOW-RS", ["outcome"], registry=self.registry)
        self.seconds = Histogram(
            "alnnode_http_request_seconds",
            "Time to answer HTTP requests",
            ["route", "method", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )


class _Collector:
    def __init__(self, settings: Settings, overview: Overview) -> None:
        self._settings, self._overview = settings, overview

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


async def metrics(request: Request) -> Response:
    """Answer in the text format."""
    registry = request.app.state.metrics.registry
    try:
        text = await run_in_threadpool(generate_latest, registry)
    except (SQLAlchemyError, OSError) as error:
        return PlainTextResponse(f"cannot be read now ({type(error).__name__})", 503)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
