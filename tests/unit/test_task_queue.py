"""The messages on the broker, and the Celery options that prevent the loss of a job."""

import pytest
from celery import Celery

from alnnode.errors import ServiceError
from alnnode.settings import Analysis, ArchiveDicomweb, Broker, Node, Report, Settings
from alnnode.task_queue import ANALYSE, Producer, celery_options, ping


def options(limit: float = 900) -> dict:
    return celery_options(Settings(broker=Broker(url="redis://127.0.0.1:1/0"), analysis=Analysis(time_limit=limit)))


@pytest.mark.parametrize("limit", [30, 900, 7200])
def test_redis_hands_no_task_out_twice_within_its_limit(limit) -> None:
    app = Celery("test", set_as_current=False)
    app.conf.update(options(limit))
    assert app.conf.task_time_limit == limit
    assert app.conf.task_soft_time_limit == pytest.approx(0.9 * limit)
    assert app.conf.visibility_timeout > limit
    assert app.conf.broker_transport_options["visibility_timeout"] > limit
    assert app.conf.result_backend_transport_options["visibility_timeout"] > limit


def test_the_look_for_earlier_reports_takes_nothing_from_the_time_of_an_analysis() -> None:
    archives = (ArchiveDicomweb(name="vna", url="http://127.0.0.1/dicom-web"),)
    report = Report(follow_up="archives", prior_timeout=100)
    set_up = celery_options(Settings(analysis=Analysis(time_limit=900), report=report, archives=archives))
    assert (set_up["task_soft_time_limit"], set_up["task_time_limit"]) == (910, 1000)
    assert set_up["visibility_timeout"] > 1000


def test_a_lost_worker_gives_its_task_back_and_nothing_but_json_is_taken() -> None:
    app = Celery("test", set_as_current=False)
    app.conf.update(options())
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.accept_content == ["json"]
    assert app.conf.result_backend is None


@pytest.mark.timeout(30)
def test_an_absent_broker_is_said_soon_and_without_its_password(tmp_path) -> None:
    settings = Settings(node=Node(data_dir=tmp_path))
    with pytest.raises(ServiceError, match="the Redis of this node does not run: start `alnnode serve`"):
        ping(settings.broker_url)
    with pytest.raises(ServiceError, match="the Redis of this node does not run: start `alnnode serve`"):
        Producer(settings).enqueue_analysis("job-1")
    with pytest.raises(ServiceError, match="the Redis of this node does not run: start `alnnode serve`"):
        Producer(settings).queued(ANALYSE)
    with pytest.raises(ServiceError) as caught:
        ping("redis://:secret@127.0.0.1:1/0")
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith("nothing listens at the address of the broker: check that Redis runs")
