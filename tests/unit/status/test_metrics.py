"""/metrics contains the values of a node, and every name that the dashboard and the alerts in deploy/ use."""

import json
import re
from pathlib import Path

import pytest
from dicom_objects import ct
from held import ready, received
from prometheus_client.parser import text_string_to_metric_families
from web_service import part10, service
from workitem import workitem

from alnnode.process import heartbeat
from alnnode.status.progress import PROBABILITY, WorkProgress
from workers.step_timer import StepTimer

DEPLOY = Path(__file__).parents[3] / "deploy"
DIGEST = "b" * 64
NAME = re.compile(r"\balnnode_[a-z_]+\b")


@pytest.fixture
def metrics(tmp_path):
    """The metrics of a node that has received and analysed series and has a worklist: {sample name: {labels: value}}."""
    with service(tmp_path) as (client, opened):
        job = received(opened, client, [part10(ct(1)), part10(ct(2))])
        claim = ready(opened, job)
        progress = WorkProgress(opened.engine)
        steps = StepTimer(progress, job)
        for step in ("read", "locate", "read"):
            steps.begin(step)
        progress.count_probabilities(DIGEST, [0.05, 0.52, 0.58])
        progress.count_probabilities(DIGEST, [1.0])
        progress.count_probabilities(DIGEST, [])
        heartbeat.write_values(opened.settings.node.data_dir, "analyse", {"total": 8e9, "peak": 2e9})
        heartbeat.beat(opened.settings.node.data_dir, "analyse")
        client.post("/dicom-web/workitems?1.2.3", json=workitem(codes=("L:OTHER",)))
        other = received(opened, client, [part10(ct(3, series="1.2.9"))])
        opened.jobs.fail(ready(opened, other), "not analysable")
        opened.jobs.analysed(claim, [], {})
        client.get("/health/live")
        found = {}
        for family in text_string_to_metric_families(client.get("/metrics").text):
            found.setdefault(family.name, {})
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        yield found


def only(samples, **labels):
    return next(value for key, value in samples.items() if dict(key).items() >= labels.items())


def test_the_metrics_contain_what_workers_report(metrics) -> None:
    assert only(metrics["alnnode_step_seconds_count"], step="read") == 1
    assert only(metrics["alnnode_step_seconds_sum"], step="locate") >= 0
    buckets = metrics["alnnode_node_probability_bucket"]
    assert [only(buckets, le=le) for le in ("0.1", "0.5", "0.6", "1.0", "+Inf")] == [1, 1, 3, 4, 4]
    assert only(metrics["alnnode_node_probability_sum"], bundle=DIGEST[:12]) == pytest.approx(2.15)
    assert only(metrics["alnnode_gpu_memory_bytes"], kind="peak") == 2e9
    assert only(metrics["alnnode_workitems"], state="SCHEDULED") == 1


def test_every_metric_that_deploy_uses_exists(metrics) -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "alnnode.json").read_text(encoding="utf-8"))
    asked = {name for panel in dashboard["panels"] for target in panel["targets"] for name in NAME.findall(target["expr"])}
    assert len(dashboard["panels"]) >= 12
    rules = (DEPLOY / "prometheus" / "alnnode.rules.yaml").read_text(encoding="utf-8")
    asked |= {name for line in rules.splitlines() if "annotations" not in line for name in NAME.findall(line)}
    assert len(asked) >= 15
    assert asked - set(metrics) == set()


def test_a_failing_database_does_not_stop_the_step_timer(tmp_path) -> None:
    from alnnode.db import engine

    progress = WorkProgress(engine.create(f"sqlite:///{tmp_path / 'empty.db'}"))
    StepTimer(progress, "job").begin("read")
    progress.count_probabilities(DIGEST, [0.5])
    assert not (tmp_path / "figures").exists()
    assert heartbeat.read_values(tmp_path) == {}
    with pytest.raises(Exception, match="no such table"):
        progress.tallies(PROBABILITY)
