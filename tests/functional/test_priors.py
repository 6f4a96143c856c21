"""Prior reports of a patient: those that the node stored, and those from Orthanc."""

import hashlib
import os
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import httpx
import pytest
from analyses import CONTEXT, analysis, as_sent, header, prior_report
from programs import system
from pydicom import Dataset
from pydicom.config import disable_value_validation
from sources import ct_files
from viewers import orthanc, post

from alnnode import report
from alnnode.cli.offline import NONE_EARLIER, offline_context
from alnnode.errors import ServiceError, SettingsError
from alnnode.follow_up.choice import choose_prior
from alnnode.follow_up.compare import compare_with_prior
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.priors import lookup
from alnnode.priors.dicomweb_archive import DicomwebArchive
from alnnode.records.comparison import PriorLookup
from alnnode.report import answer
from alnnode.report.times import content_moment
from alnnode.settings import ArchiveDicomweb, Report, Retention, Settings, load

OWN = Settings()
TODAY = header()
TODAY.StudyInstanceUID, TODAY.StudyDate = "2.25.555", "20260901"


def made(**changes: str):
    """Return the results on an earlier study of the patient P-1."""
    source = header()
    for keyword, value in changes.items():
        setattr(source, keyword, value)
    return report.build(analysis(2, source), replace(CONTEXT, input_digest=hashlib.sha256(repr(changes).encode()).hexdigest()))


def test_the_nodes_own_report_is_found_again(tmp_path: Path) -> None:
    results = made()
    lookup.store_comparison_record(OWN, tmp_path, header(), results)
    found = lookup.find_prior(OWN, tmp_path, TODAY)
    assert found.report.sop_instance_uid == results[0].sop_instance_uid
    assert len(found.report.record.nodes) == 2
    # Not for a later study, the study itself, or another patient.
    assert lookup.find_prior(OWN, tmp_path, header()) == PriorLookup()
    for keyword, value in (
        ("PatientID", "P-2"),
        ("PatientBirthDate", "19600103"),
        ("IssuerOfPatientID", "X"),
    ):
        other = header()
        other.StudyInstanceUID, other.StudyDate = "2.25.555", "20260901"
        setattr(other, keyword, value)
        assert lookup.find_prior(OWN, tmp_path, other) == PriorLookup(), keyword


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("StudyDate", None, "the images have no valid Study Date"),
        ("StudyDate", "", "the images have no valid Study Date"),
        ("StudyDate", "2026", "the images have no valid Study Date"),
        ("PatientID", "", "the images have no Patient ID"),
    ],
)
def test_a_series_that_cannot_be_compared_says_so_in_its_report(
    tmp_path: Path, keyword: str, value: str | None, reason: str
) -> None:
    lookup.store_comparison_record(OWN, tmp_path, header(), made())
    undated = header()
    undated.StudyInstanceUID, undated.StudyDate = "2.25.555", "20260901"
    with disable_value_validation():
        setattr(undated, keyword, value)
    found = lookup.find_prior(OWN, tmp_path, undated)
    assert found == PriorLookup(trouble=reason)
    # Of one folder, only where the user gave reports to compare with.
    image = tmp_path / "image.dcm"
    as_sent(undated).save_as(image, enforce_file_format=True)
    given = tmp_path / "sr.dcm"
    given.write_bytes(made()[0].data)
    assert offline_context([image], OWN, [given]).prior == PriorLookup(trouble=reason)
    assert offline_context([image], OWN).prior == PriorLookup()
    of = analysis(2, undated)
    said = compare_with_prior(of, ChestAnatomy(of.volume), found)
    assert f"Not compared with earlier reports: {reason}" in answer.lines(said)


def test_given_files_that_are_no_earlier_report_of_the_patient_are_named_as_such(tmp_path: Path) -> None:
    image, given = tmp_path / "image.dcm", tmp_path / "sr.dcm"
    as_sent(TODAY).save_as(image, enforce_file_format=True)
    given.write_bytes(made(PatientID="P-2")[0].data)
    assert offline_context([image], OWN, [given]).prior == PriorLookup(trouble=NONE_EARLIER)
    given.write_bytes(made()[0].data)
    found = offline_context([image], OWN, [given]).prior
    assert (found.report is None, found.trouble) == (False, None)


def test_a_report_that_was_replaced_is_no_prior(tmp_path: Path) -> None:
    """Whatever UIDs the two have: in some of four pairs the replaced report has the greater one."""
    for number in range(4):
        context = replace(CONTEXT, input_digest=f"{number}" * 64)
        first = report.build(analysis(0), context)[0]
        named = (first.sop_class_uid, first.sop_instance_uid, first.series_instance_uid, first.study_instance_uid)
        later = replace(context, revision=2, predecessor=named, created=CONTEXT.created + timedelta(days=1))
        second = report.build(analysis(0), later)[0]
        for order in ((first, second), (second, first)):
            spool = tmp_path / f"{number}{order[0] is first}"
            for item in order:
                lookup.store_comparison_record(OWN, spool, header(), [item])
            found = lookup.find_prior(OWN, spool, TODAY).report
            assert found.sop_instance_uid == second.sop_instance_uid
            assert (found.made, found.supersedes) == ("20260505030201", (first.sop_instance_uid,))


def test_of_two_reports_of_which_none_names_the_other_the_newer_is_the_prior() -> None:
    one = prior_report().model_copy(update={"sop_instance_uid": "2.25.9", "made": "20251102120000"})
    two = prior_report().model_copy(update={"sop_instance_uid": "2.25.1", "made": "20251102120001"})
    assert (
        choose_prior([one, two], "2.25.4", date(2026, 5, 4), 2.0)
        == choose_prior([two, one], "2.25.4", date(2026, 5, 4), 2.0)
        == two
    )
    # The moments are compared, not their texts.
    tokyo, utc = Dataset(), Dataset()
    tokyo.ContentDate, tokyo.ContentTime, tokyo.TimezoneOffsetFromUTC = "20260504", "083000.5", "+0900"
    utc.ContentDate, utc.ContentTime, utc.TimezoneOffsetFromUTC = "20260504", "0100", "+0000"
    assert (content_moment(tokyo), content_moment(utc), content_moment(Dataset())) == ("20260503233000", "20260504010000", "")


def test_a_site_that_follows_nothing_up_keeps_nothing(tmp_path: Path) -> None:
    off = Settings(report=Report(follow_up="off"))
    lookup.store_comparison_record(off, tmp_path, header(), made())
    lookup.store_comparison_record(Settings(retention=Retention(follow_up_days=0)), tmp_path, header(), made())
    assert not list(tmp_path.rglob("*.json"))
    assert lookup.find_prior(off, tmp_path, TODAY) is None


def test_a_kept_report_of_another_version_is_no_error(tmp_path: Path) -> None:
    lookup.store_comparison_record(OWN, tmp_path, header(), made())
    for path in tmp_path.rglob("*.json"):
        path.write_text("{}")
    assert lookup.find_prior(OWN, tmp_path, TODAY) == PriorLookup()


def test_an_image_that_cannot_be_read_is_compared_with_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(os.urandom(300))
    assert lookup.image_header(broken) is None
    assert lookup.image_header(tmp_path / "absent.dcm") is None
    assert lookup.find_prior(OWN, tmp_path, None) == PriorLookup()


@pytest.mark.skipif(system("Orthanc") is None, reason="NO ORTHANC: apt install orthanc orthanc-dicomweb")
def test_reports_come_from_an_archive(tmp_path: Path) -> None:
    with orthanc(tmp_path) as (root, _):
        results, other = made(), made(PatientID="P-2", StudyInstanceUID="2.25.77", SeriesInstanceUID="2.25.78")
        for item in (*results, *other):
            post(root, item.data)
        post(root, next(iter(ct_files(analysis(0).volume))))
        settings = Settings(
            report=Report(follow_up="archives"), archives=(ArchiveDicomweb(name="vna", url=f"{root}/dicom-web"),)
        )
        found = lookup.find_prior(settings, tmp_path / "spool", TODAY)
    assert found.trouble is None
    assert found.report.sop_instance_uid == results[0].sop_instance_uid
    own = tmp_path / "own"
    lookup.store_comparison_record(OWN, own, header(), results)
    assert found == lookup.find_prior(OWN, own, TODAY), "what comes from an archive is what the node kept itself"


def test_an_archive_that_is_away_costs_the_comparison_only(tmp_path: Path) -> None:
    settings = Settings(
        report=Report(follow_up="archives"), archives=(ArchiveDicomweb(name="vna", url="http://127.0.0.1:9/x", timeout=2),)
    )
    assert lookup.find_prior(settings, tmp_path, TODAY) == PriorLookup(trouble="archive vna could not be asked")
    lookup.store_comparison_record(OWN, tmp_path, header(), made())
    found = lookup.find_prior(settings, tmp_path, TODAY)
    assert found.report is not None
    assert found.trouble == "archive vna could not be asked", "the archive may hold a more recent report"
    assert found.digest_with("ab") not in {replace(found, trouble=None).digest_with("ab"), "ab"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(500), "HTTP 500"),
        (httpx.Response(200, content=b"<html>"), "not JSON"),
        (httpx.Response(200, content=b" " * (33 << 20)), "32 MiB"),
    ],
)
def test_an_archive_that_answers_oddly_is_named_without_the_patient(answer: httpx.Response, said: str) -> None:
    archive = DicomwebArchive(ArchiveDicomweb(name="vna", url="http://archive"), httpx.MockTransport(lambda _: answer))
    with pytest.raises(ServiceError, match=said) as error:
        archive.reports("P-1", "20260901")
    assert "P-1" not in str(error.value)


def test_what_an_archive_says_is_not_asked_for_unchecked() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json=[{"0020000D": {"vr": "UI", "Value": ["../../admin"]}}, {"0020000D": {"Value": []}}, 7])

    archive = DicomwebArchive(ArchiveDicomweb(name="vna", url="http://archive/dicom-web"), httpx.MockTransport(answer))
    assert archive.reports("P-1", "20260901") == []
    assert asked == ["/dicom-web/studies"]


def test_a_token_is_sent(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    heads = []

    def answer(request: httpx.Request) -> httpx.Response:
        heads.append(request.headers["Authorization"])
        return httpx.Response(204)

    settings = ArchiveDicomweb(name="vna", url="http://archive", token_file=token)
    assert DicomwebArchive(settings, httpx.MockTransport(answer)).reports("P-1", "20260901") == []
    assert heads == ["Bearer secret"]
    token.unlink()
    with pytest.raises(ServiceError, match="cannot read the file of its token"):
        DicomwebArchive(settings, httpx.MockTransport(answer)).reports("P-1", "20260901")


def test_asking_archives_needs_one(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[report]\nfollow_up = "archives"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"needs \[\[archives\]\]"):
        load(file)
