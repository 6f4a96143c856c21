"""Validators of other projects check every kind of result: they report no error, and no warning that docs/reporting.md does not explain.

`make validate` installs what is missing where that is permitted, and runs the slow one (PixelMed) too.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from analyses import CONTEXT, EVERYTHING, built, variants
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from alnnode import report
from alnnode.records import Analysis, ObjectRole, ResultReference
from alnnode.settings import Report

SR_ROLES = {ObjectRole.SR, ObjectRole.RESULTS_TREE, ObjectRole.KEY_OBJECTS, ObjectRole.TEXT}
PIXELMED = Path("/usr/share/java/pixelmed.jar")
# Its style sheets exceed the limits that newer Java versions set; twelve nodes need 4 GB.
JAVA = ["-Xmx6g", "-Xss64m", *(f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("TotalOp", "ExprOp", "ExprGrp"))]
SAID = re.compile(r"^(Error|Exception|Warning|[WEF]:)|Warning -")
# Why they stay: docs/reporting.md, "Checked".
EXPLAINED = {
    "dciodvfy": (
        "Unrecognized defined term <99ALNNODE> ",
        r"^\(0x0099,0x1001\)  \?  - Warning - Unrecognized tag",
        "Missing attribute or value that would be needed to build DICOMDIR - Study (ID|Time)$",
    ),
    "dcentvfy": (
        "Different information entities for attribute - Element=<(AccessionNumber|IssuerOfAccessionNumberSequence)> IE <(Series> versus <Study|Study> versus <Series)>",
        "Attribute present in one instance but not the other - Element=<(AccessionNumber|PatientBirthDate|PatientSex|ReferringPhysicianName|StudyID|StudyTime)>",
        r"Error - Missing SOPInstanceUID that was referenced - 2\.25\.11 for file .*-rtstruct\.dcm>$",  # a study, not an object
    ),
    "dsrdump": ("character set: ISO_IR 192$", "Check for template constraints not yet supported$"),
    "tid1500reader": ("character set: ISO_IR 192$",),
    "pixelmed": (
        r"/(TEXT \((121106|121077|121071|111001|111002|111003)|IMAGE \(121324|CODE \(130400|COMPOSITE \(122075),DCM,[^/]*: Content Item not in template$",
        r"/(CODE|IMAGE|COMPOSITE) \([A-Z-]+,99ALNNODE,[^/]*: Content Item not in template$",
        # A document title modifier: it looks for the title beside the modifier, and the title is the concept name of the root.
        r"^Error: Template 2010 .*CODE CID 701[12]: .*\(113001,DCM,[^/]*: Conditional content item present when condition not satisfied$",
    ),
    "pixelmed-iod": (
        "^Error: GeneralSeriesModule/Laterality/: : Missing conditional attribute$",  # a chest has none; it has BodyPartExamined
        "Unrecognized defined term :ISO_IR 192:$",
    ),
}


def complaints(validator: str, output: str) -> list[str]:
    """Return the errors, and the warnings that are not explained."""
    said = [line for line in output.splitlines() if SAID.search(line)]
    return [line for line in said if not any(re.search(explained, line, re.IGNORECASE) for explained in EXPLAINED[validator])]


def tool(name: str) -> str:
    """Return the path of the tool in this environment or the system; skip with a clear reason when it is missing."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        pytest.skip(f"### {name} IS MISSING: results were not validated by it ###")
    return found


def said(*command: str, timeout: float = 120) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False)
    return done.returncode, done.stdout + done.stderr


def pixelmed(validator: str) -> list[str]:
    """Return the command of one of PixelMed's validators, without its file."""
    return [tool("java"), *JAVA, "-cp", str(PIXELMED), f"com.pixelmed.validate.{validator}"]


@pytest.fixture(
    scope="module",
    params=[(name, full) for name in variants() for full in (False, True)],
    ids=lambda p: f"{p[0]}-{'all' if p[1] else 'default'}",
)
def written(request, tmp_path_factory) -> tuple[Analysis, list[tuple[ObjectRole, Path]]]:
    name, full = request.param
    of, folder, files = variants()[name], tmp_path_factory.mktemp("results"), []
    for number, item in enumerate(built(of, EVERYTHING if full else CONTEXT)):
        path = folder / f"{number:02d}-{item.role.value}.dcm"
        path.write_bytes(item.data)
        files.append((item.role, path))
    return of, files


def root_of_ihe_ai_results(name: str, folder: Path) -> Path:
    root = report.build(variants()[name], replace(CONTEXT, options=Report(profile="air").options))[-1]
    path = folder / "tree.dcm"
    path.write_bytes(root.data)
    return path


@pytest.mark.parametrize("name", ["one", "none", "not-analysed"])
def test_the_root_of_ihe_ai_results_is_sound(name: str, tmp_path: Path) -> None:
    path = root_of_ihe_ai_results(name, tmp_path)
    assert not complaints("dciodvfy", said(tool("dciodvfy"), str(path))[1])
    code, output = said(tool("dsrdump"), str(path))
    assert code == 0
    assert not complaints("dsrdump", output)


def sources(of: Analysis, folder: Path) -> list[Path]:
    """Write headers of the source images and of a prior report, so that validators can follow references."""
    paths = {}
    for reference in of.volume.slices if of.volume else ():
        if reference.sop_instance_uid not in paths:
            paths[reference.sop_instance_uid] = folder / f"source-{len(paths):03d}.dcm"
            image = Dataset()
            image.update(of.header)
            write(image, reference.sop_class_uid, reference.sop_instance_uid, paths[reference.sop_instance_uid])
    if of.comparison is not None and of.comparison.prior is not None:
        prior, path = of.comparison.prior, folder / "prior.dcm"
        document = Dataset()
        for keyword in ("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
            document.add(of.header[keyword])
        document.StudyInstanceUID, document.SeriesInstanceUID = prior.study_instance_uid, prior.series_instance_uid
        document.Modality = "SR"
        write(document, prior.sop_class_uid, prior.sop_instance_uid, path)
        paths["prior"] = path
    return list(paths.values())


def write(image: Dataset, sop_class: str, sop_instance: str, path: Path) -> None:
    image.SOPClassUID, image.SOPInstanceUID = sop_class, sop_instance
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID, image.file_meta.MediaStorageSOPInstanceUID = sop_class, sop_instance
    image.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    ("validator", "line"),
    [
        ("dciodvfy", "Error - Missing attribute Type 1 Required Element=<Modality>"),
        ("dciodvfy", "(0x0028,0x0010) US Rows  - Warning - Value dubious"),
        ("dcentvfy", "Warning - Attribute present in one instance but not the other - Element=<PatientID> IE=<Patient>"),
        ("dsrdump", "E: reading report failed"),
        (
            "pixelmed",
            'Error: 1.6.1: /CONTAINER (126000,DCM,"Imaging Measurement Report")/CODE (ASSESSMENT,99ALNNODE,"x"): missing',
        ),
        ("pixelmed", 'Error: Template 2010 /[Row 8] IMAGE: /CONTAINER (113001,DCM,"Rejected for Quality Reasons"): missing'),
        (
            "pixelmed",
            'Warning: 1.6: /CONTAINER (126000,DCM,"Imaging Measurement Report")/NUM (1,DCM,"x"): Content Item not in template',
        ),
    ],
)
def test_what_is_not_explained_counts(validator: str, line: str) -> None:
    assert complaints(validator, f"all is well\n{line}\n") == [line]


def test_dciodvfy_reports_no_error(written) -> None:
    dciodvfy = tool("dciodvfy")
    # Further captures differ from the second in pixels only.
    captures = [path for role, path in written[1] if role is ObjectRole.CAPTURE]
    for _, path in written[1]:
        if path in captures[2:]:
            continue
        _, output = said(dciodvfy, str(path))
        assert not complaints("dciodvfy", output), path.name


def test_dcentvfy_finds_patient_study_and_series_consistent(written, tmp_path: Path) -> None:
    dcentvfy = tool("dcentvfy")
    of, files = written
    found = sources(of, tmp_path)
    if not found:
        return  # not analysed: there is no image to follow a reference to
    _, output = said(dcentvfy, *map(str, found), *(str(path) for _, path in files))
    assert not complaints("dcentvfy", output)


@pytest.mark.dcmtk
def test_dsrdump_reads_every_report(written) -> None:
    for role, path in written[1]:
        if role in SR_ROLES:
            code, output = said(tool("dsrdump"), str(path))
            assert code == 0
            assert not complaints("dsrdump", output)


def test_tid1500reader_reads_every_group(written, tmp_path: Path) -> None:
    reader = tool("tid1500reader")
    sr = written[1][0][1]
    if b"Imaging Measurement Report" not in sr.read_bytes():
        return  # a text report has no template 1500 to read
    target = tmp_path / "read.json"
    code, output = said(reader, "--inputDICOM", str(sr), "--outputMetadata", str(target))
    assert code == 0, output
    assert not complaints("tid1500reader", output)
    assert target.read_text().count("TrackingUniqueIdentifier") == sr.read_bytes().count(b"Measurement Group")


def rejection_note(tmp_path: Path) -> Path:
    old = tuple(
        ResultReference(i.role, i.sop_class_uid, i.sop_instance_uid, i.series_instance_uid, i.study_instance_uid)
        for i in report.build(variants()["ordered"], EVERYTHING)
    )
    note = report.build(variants()["ordered"], replace(EVERYTHING, revision=2, superseded=old))[-1]
    assert note.role is ObjectRole.REJECTION
    path = tmp_path / "reject.dcm"
    path.write_bytes(note.data)
    return path


@pytest.mark.parametrize("validator", ["dciodvfy", "dsrdump"])
@pytest.mark.dcmtk
def test_a_rejection_note_is_valid(validator: str, tmp_path: Path) -> None:
    _, output = said(tool(validator), str(rejection_note(tmp_path)))
    assert not complaints(validator, output)


@pytest.mark.timeout(900)
@pytest.mark.skipif("ALNNODE_VALIDATE" not in os.environ, reason="slow: `make validate` runs it")
def test_pixelmed_finds_the_template_of_a_rejection_note_conformant(tmp_path: Path) -> None:
    if not PIXELMED.exists():
        pytest.skip("### PIXELMED IS MISSING: apt install libpixelmed-java; the rejection note was not validated by it ###")
    output = said(*pixelmed("DicomSRValidator"), str(rejection_note(tmp_path)), timeout=800)[1]
    assert "IOD validation complete" in output
    assert not complaints("pixelmed", output)


@pytest.mark.timeout(900)
@pytest.mark.skipif("ALNNODE_VALIDATE" not in os.environ, reason="slow: `make validate` runs it")
@pytest.mark.parametrize("name", ["one", "none", "not-analysed"])
def test_pixelmed_finds_the_root_of_ihe_ai_results_conformant(name: str, tmp_path: Path) -> None:
    if not PIXELMED.exists():
        pytest.skip("### PIXELMED IS MISSING: apt install libpixelmed-java; the root was not validated by it ###")
    output = said(*pixelmed("DicomSRValidator"), str(root_of_ihe_ai_results(name, tmp_path)), timeout=800)[1]
    assert "IOD validation complete" in output
    assert not complaints("pixelmed", output)


@pytest.mark.timeout(900)
@pytest.mark.skipif("ALNNODE_VALIDATE" not in os.environ, reason="slow: `make validate` runs it")
@pytest.mark.parametrize("name", ["one", "enhanced", "own-frames"])
def test_pixelmed_reads_the_further_kinds_and_finds_no_error(name: str, tmp_path: Path) -> None:
    """Of these kinds its edition has rules for the Segmentation only; it reads the others whole, and says that it has none."""
    if not PIXELMED.exists():
        pytest.skip("### PIXELMED IS MISSING: apt install libpixelmed-java; Segmentations were not validated by it ###")
    judged = set()
    for item in built(variants()[name], EVERYTHING):
        if item.role in SR_ROLES:
            continue
        path = tmp_path / f"{item.role.value}.dcm"
        path.write_bytes(item.data)
        output = said(*pixelmed("DicomInstanceValidator"), str(path), timeout=300)[1]
        assert not complaints("pixelmed-iod", output), item.role
        assert "IOD validation complete" in output or output.strip() == "IOD (SOP Class) unrecognized", item.role
        judged.add((item.role, "IOD validation complete" in output))
    assert {(ObjectRole.SEGMENTATION, True), (ObjectRole.STRUCTURE_SET, False)} <= judged


@pytest.mark.timeout(900)
@pytest.mark.skipif("ALNNODE_VALIDATE" not in os.environ, reason="slow: `make validate` runs it")
def test_pixelmed_finds_the_templates_conformant(written, request) -> None:
    if not PIXELMED.exists():
        pytest.skip("### PIXELMED IS MISSING: apt install libpixelmed-java; templates were not validated ###")
    if "forty" in request.node.name:
        pytest.skip("PixelMed runs out of 6 GB on forty nodes")
    for role, path in written[1]:
        if role not in SR_ROLES:
            continue
        _, output = said(*pixelmed("DicomSRValidator"), str(path), timeout=800)
        assert "IOD validation complete" in output
        assert not complaints("pixelmed", output)
