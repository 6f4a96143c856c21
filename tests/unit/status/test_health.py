"""``/health/ready`` and the status page while workers start."""

import os
import time

from web_service import service

from alnnode.process import heartbeat

WORKERS = ("worker-analyse", "worker-deliver")


def test_a_worker_that_starts_counts_as_present_and_is_named_until_it_works_or_is_late(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("alnnode.status.health.CACHE_SECONDS", -1)
    with service(tmp_path) as (client, services):
        data_dir = services.settings.node.data_dir

        def workers() -> tuple[list[bool], list[str]]:
            answer = client.get("/health/ready").json()
            return [answer["checks"][name] for name in WORKERS], answer["starting"]

        assert workers() == ([False, False], [])
        assert "no worker has started yet" in client.get("/").text
        heartbeat.write_starting(data_dir, WORKERS)
        assert workers() == ([True, True], list(WORKERS))
        assert '<span class="chip">starting</span> worker-analyse' in client.get("/").text
        heartbeat.beat(data_dir, "deliver")
        assert workers() == ([True, True], ["worker-analyse"])
        (file,) = (data_dir / "starting").iterdir()
        os.utime(file, (time.time() - heartbeat.STARTING - 1,) * 2)
        assert workers() == ([False, True], []), "a start that takes too long is an outage"
        heartbeat.write_starting(data_dir, ["worker-analyse"])
        assert workers() == ([True, True], ["worker-analyse"])
        heartbeat.write_starting(data_dir, [])
        assert workers() == ([False, True], [])
        assert list((data_dir / "starting").iterdir()) == []
