"""A PACS over DICOMweb: it sends results back to the node, and its requests end early."""

import socket
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from analyses import CONTEXT, analysis
from dicom_objects import ct
from held import analysed, received
from listening import wait_for
from sources import ct_files
from web_service import body, content_type, part10, server, service, stow

from alnnode import report
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import ObjectRole, ReportOptions
from alnnode.settings import Completion

AFTER_GRACE, AFTER_QUIET = timedelta(seconds=20), timedelta(seconds=120)


def test_results_that_a_pacs_sends_back_are_found_once(tmp_path) -> None:
    of = analysis(1)
    results = report.build(of, replace(CONTEXT, options=ReportOptions(kinds=frozenset({ObjectRole.SEGMENTATION}))))
    with service(tmp_path) as (client, opened):
        job = received(opened, client, list(ct_files(of.volume)))
        analysed(opened, job, results)

        def found(query: str) -> list[dict]:
            return client.get(f"/dicom-web/{query}", headers={"Accept": "application/dicom+json"}).json()

        def told() -> list[object]:
            series = {item["0020000E"]["Value"][0]: item["00201209"]["Value"][0] for item in found("series")}
            assert len(series) == len(found("series"))
            instances = [item["00080018"]["Value"][0] for item in found("instances?limit=100")]
            assert len(instances) == len(set(instances))
            (study,) = found("studies")
            return [series, sorted(instances), study["00201206"], study["00201208"]]

        before = told()
        assert len(before[0]) == 4
        back = [item.data for item in results if item.role in {ObjectRole.SR, ObjectRole.SEGMENTATION}]
        assert stow(client, *back).status_code == 200
        wait_for(lambda: len(opened.jobs.list()) == 1 + len(back))
        assert told() == before


@pytest.mark.parametrize("whole", [True, False])
def test_an_incomplete_request_does_not_complete_a_series(tmp_path, whole: bool) -> None:
    content = body(*(part10(ct(number)) for number in range(4)))
    sent = content if whole else content[: len(content) * 3 // 4 - 100]
    fields = {**content_type(), "Host": "127.0.0.1", "Content-Length": str(len(content)), "Accept": "application/dicom+json"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with server(tmp_path) as (url, opened):
        with closing(socket.create_connection(("127.0.0.1", urlsplit(url).port))) as connection:
            connection.sendall(f"POST /dicom-web/studies HTTP/1.1\r\n{head}\r\n".encode() + sent)
            if whole:
                assert b" 200 " in connection.recv(4096)
        wait_for(lambda: [job.instances for job in opened.jobs.list()] == [4 if whole else 2])
        opened.acceptor.close()  # waits until the end of the request is recorded
        now = datetime.now(UTC)
        early = ReceivedSeries(opened.engine).complete_due(Completion(), lambda _: None, now=now + AFTER_GRACE)
        assert len(early) == int(whole), "an incomplete series must not be analysed"
        late = ReceivedSeries(opened.engine).complete_due(Completion(), lambda _: None, now=now + AFTER_QUIET)
        assert len(early) + len(late) == 1
