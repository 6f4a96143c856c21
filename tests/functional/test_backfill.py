"""The backfill: with Orthanc, and with an archive that counts what it is asked, while other senders send and the backfill is killed."""

import signal
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta

import pytest
from archives import archive
from dicom_objects import STUDY, ct
from listening import Listener, wait_for
from programs import system
from sqlalchemy import select
from stages import TERMS
from viewers import orthanc, post
from web_service import part10

from alnnode.backfill.backfill import Backfill, Plan
from alnnode.backfill.search import may_be_wanted
from alnnode.db import engine as engines
from alnnode.db import schema
from alnnode.db.queue_tables import BackfillSeriesRow, BackfillState
from alnnode.db.rows import SeriesFacts
from alnnode.errors import ServiceError
from alnnode.receive import routes
from alnnode.records.priority import Priority
from alnnode.settings import ArchiveDicom, ArchiveDicomweb, Route

FIRST, LAST = date(2024, 3, 1), date(2024, 3, 3)
ORTHANC = pytest.mark.skipif(system("Orthanc") is None, reason="NO ORTHANC: apt install orthanc")


def image(day, series, number, **changes):
    """An image of series ``series`` of a study of a day."""
    study = f"{STUDY}.{day:%Y%m%d}"
    return ct(number, f"{study}.{series}", side=16, StudyInstanceUID=study, StudyDate=f"{day:%Y%m%d}", **changes)


def images():
    """Two series of three images for each day, a scout series that no route selects, and a day without studies."""
    return [
        image(day, series, number, SeriesDescription="Scout" if series == 3 else "Thorax")
        for day in (FIRST, LAST)
        for series in (1, 2, 3)
        for number in (1, 2, 3)
    ]


ROUTES = '[[routes]]\nname = "urgent"\ncalling_ae_titles = ["CT1"]\n[[routes]]\nname = "all"\nexclude_description = "scout"\n'


@pytest.fixture
def node(tmp_path):
    """The node's listener, and the archive that it knows."""
    url = f"sqlite:///{tmp_path / 'alnnode.db'}"
    schema.migrate(url)
    with archive(0, images()) as known:
        of_archive = (
            f'[[archives]]\nname = "pacs"\nkind = "dicom"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {known.port}\n'
        )
        found = Listener(tmp_path, url, f"processes = 1\n{of_archive}{ROUTES}", "min_free_mb = 0\nclean_below_mb = 0")
        known.node_port = found.port
        found.archive, found.engine = known, engines.create(url)
        found.start()
        yield found
        found.stop()
        found.engine.dispose()


def command(node, *options):
    arguments = [
        "pacs",
        "--from",
        f"{FIRST}",
        "--to",
        f"{LAST}",
        "--rate",
        "1000000",
        "--waiting",
        "100000",
        "--config",
        str(node._config),
        *options,
    ]
    return subprocess.Popen([sys.executable, "-m", "alnnode", "backfill", *arguments], stdout=subprocess.PIPE, text=True)


def states(node) -> dict[str, str]:
    with node.engine.connect() as connection:
        return dict(connection.execute(select(BackfillSeriesRow.series_uid, BackfillSeriesRow.state)).all())


def send_others(node, stop, results) -> None:
    """Send series of another sender until told to stop; record each status."""
    number = 0
    while not stop.is_set() or number < 3:
        association = node.associate()
        for slice_number in (1, 2):
            results.append(association.send_c_store(ct(slice_number, f"{STUDY}.77.{number}", side=16)).get("Status"))
        association.release()
        number += 1
        stop.wait(0.2)


def test_a_killed_backfill_goes_on_under_load_without_refusal_loss_or_duplicate(node, capsys) -> None:
    stop, statuses = threading.Event(), []
    others = threading.Thread(target=send_others, args=(node, stop, statuses))
    others.start()
    try:
        node.archive.go_on.clear()
        first = command(node)
        wait_for(lambda: node.archive.moved, 100)
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=60)
        node.archive.go_on.set()
        second = command(node)
        output, _ = second.communicate(timeout=150)
    finally:
        stop.set()
        others.join(60)
    assert second.returncode == 0, output
    expected = {one.SeriesInstanceUID for one in images() if one.SeriesDescription != "Scout"}
    assert states(node) == dict.fromkeys(expected, BackfillState.RETRIEVED)
    searches, moves = node.archive.searched, node.archive.moved
    assert len(searches) == len(set(searches)), "no search is made twice"
    assert len(searches) == 3 + 2, "three days, two studies"
    assert set(moves) == expected
    assert len(moves) <= len(expected) + 1, "only the series whose transfer was killed may be requested twice"
    wait_for(lambda: node.recorded() == 3 * len(expected) + len(statuses), 60)
    jobs = node.jobs.list()
    assert set(statuses) == {0x0000}
    assert len({job.series_uid for job in jobs}) == len(jobs) == len(expected) + len(statuses) // 2
    assert {job.instances for job in jobs if job.series_uid in expected} == {3}
    with capsys.disabled():
        print(  # noqa: T201 - the figures of the check
            f"\nbackfill killed once: {len(expected)} series in {len(moves)} requests, {len(searches)} searches, none twice; meanwhile "
            f"{len(statuses)} images of another sender: {sum(status != 0 for status in statuses)} refused, 0 lost, 0 doubled"
        )
    # The series of the other sender are analysed first.
    later = datetime.now(UTC) + timedelta(hours=1)
    known = node.settings.routes
    ready = node.received.complete_due(
        node.settings.completion,
        lambda facts: routes.unwanted(known, facts),
        later,
        priority=lambda facts: routes.priority(known, facts),
    )
    assert len(ready) == len(jobs)
    order = [node.jobs.claim(ready[0], TERMS, later).series_uid in expected for _ in ready]
    assert order == sorted(order)
    assert {node.jobs.get(job.job_id).priority for job in jobs if job.series_uid in expected} == {Priority.BACKFILL}


def backfill(node, said, **changes) -> Backfill:
    plan = Plan(node.settings.archives[0], FIRST, LAST, 1e9, 100)
    return Backfill(
        node.settings, node.engine, Plan(**{name: getattr(plan, name) for name in Plan.__slots__} | changes), said.append
    )


def test_a_search_alone_requests_no_series_and_is_used_later(node) -> None:
    said = []
    backfill(node, said).run(search_only=True)
    assert said[0] == "2024-03-03: 3 series in the archive, 2 of them for a route, 2 new"
    assert not node.archive.moved
    searches = len(node.archive.searched)
    backfill(node, said).run()
    assert len(node.archive.searched) == searches
    assert len(node.archive.moved) == 4


def test_an_archive_that_sends_nothing_stops_the_backfill_with_its_reason(node, monkeypatch) -> None:
    monkeypatch.setattr("alnnode.backfill.rows.PAUSE", timedelta())
    node.archive.refuses = True
    said = []
    with pytest.raises(
        ServiceError, match=r"5 series in a row were not retrieved; the last error: archive pacs: .*run the command again"
    ):
        backfill(node, said).run()
    assert BackfillState.FAILED in states(node).values()
    node.archive.refuses = False
    again = backfill(node, said)
    assert again.rows.retry_failed(FIRST, LAST, datetime.now(UTC)) >= 1
    again.run()
    assert set(states(node).values()) == {BackfillState.RETRIEVED}


def test_the_backfill_waits_while_the_node_is_busy_and_for_its_rate(node, monkeypatch) -> None:
    monkeypatch.setattr("alnnode.backfill.backfill.POLL", 0.01)
    association = node.associate()
    assert association.send_c_store(ct(1, f"{STUDY}.88", side=16)).Status == 0x0000
    association.release()
    wait_for(lambda: node.recorded() == 1)
    said = []
    busy = backfill(node, said, waiting=1)
    run = threading.Thread(target=busy.run)
    run.start()
    try:
        wait_for(lambda: "waiting: 1 job waits in the node" in said)
        assert not node.archive.moved
    finally:
        busy.stop.set()
        run.join(30)
    slow = backfill(node, said, rate=1)
    run = threading.Thread(target=slow.run)
    run.start()
    try:
        wait_for(lambda: BackfillState.RETRIEVED in states(node).values())
        with pytest.raises(ServiceError, match="another backfill of this archive runs"):
            backfill(node, said).run()
        assert len(node.archive.moved) == 1, "the next one is due in an hour"
    finally:
        slow.stop.set()
        run.join(30)


def test_a_series_that_the_node_has_is_not_requested(node) -> None:
    association = node.associate()
    for one in images()[:3]:
        assert association.send_c_store(one).Status == 0x0000
    association.release()
    wait_for(lambda: node.recorded() == 3)
    backfill(node, []).run()
    assert images()[0].SeriesInstanceUID not in node.archive.moved
    assert len(node.archive.moved) == 3


def test_what_the_archive_does_not_say_excludes_no_series() -> None:
    known = [Route(name="a", kernel="^B", slice_thickness=(0, 2), calling_ae_titles=["PACS"], body_parts=["CHEST"])]
    assert may_be_wanted(known, SeriesFacts(calling_ae="PACS", modality="CT"))
    assert may_be_wanted(known, SeriesFacts(calling_ae="PACS", modality="CT", body_part="CHEST"))
    assert not may_be_wanted(known, SeriesFacts(modality="CT"))
    assert not may_be_wanted(known, SeriesFacts(calling_ae="PACS", modality="CT", body_part="HEAD"))
    assert not may_be_wanted(known, SeriesFacts(modality="MR"))


@ORTHANC
@pytest.mark.parametrize("kind", ["dicom", "dicomweb"])
def test_orthanc_is_searched_and_sends_its_series(tmp_path, kind) -> None:
    url = f"sqlite:///{tmp_path / 'alnnode.db'}"
    schema.migrate(url)
    node = Listener(tmp_path, url, f"processes = 1\n{ROUTES}", "min_free_mb = 0\nclean_below_mb = 0")
    node.start()
    node.engine = engines.create(url)
    try:
        with orthanc(tmp_path, {"node": ["ALNNODE", "127.0.0.1", node.port]}) as (root, port):
            for one in images():
                post(root, part10(one))
            there = {
                "dicom": ArchiveDicom(name="pacs", ae_title="PACS", host="127.0.0.1", port=port),
                "dicomweb": ArchiveDicomweb(name="pacs", url=f"{root}/dicom-web"),
            }[kind]
            node.settings = node.settings.model_copy(update={"archives": (there,)})
            said = []
            backfill(node, said).run()
        assert said[0] == "2024-03-03: 3 series in the archive, 2 of them for a route, 2 new"
        wait_for(lambda: node.recorded() == 12)
        assert set(states(node).values()) == {BackfillState.RETRIEVED}
    finally:
        node.stop()
        node.engine.dispose()
