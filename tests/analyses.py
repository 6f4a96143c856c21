"""Synthetic analyses for the tests of reports: records only, no model, no files."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from alnnode import report
from alnnode.imaging.crop import CropSettings, crop_box
from alnnode.records import (
    Analysis,
    Attenuation,
    AxillaCoverage,
    Axis,
    Box,
    CaptureForm,
    Crop,
    Finding,
    Heatmap,
    Interval,
    Level,
    ModelIdentity,
    Node,
    NodeSource,
    ObjectRole,
    OperatingPoint,
    Prediction,
    ReportContext,
    ReportOptions,
    Side,
    SliceRef,
    SRClass,
    Volume,
)
from alnnode.records.comparison import Change, Comparison, ComparisonRecord, NodeChange, PriorLookup, PriorNode, PriorReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import ResultObject

POINT = OperatingPoint(
    0.5, Interval(0.95, 0.91, 0.98), Interval(0.88, 0.83, 0.92), "held-out synthetic phantoms, n = 480 nodes"
)
MODEL = ModelIdentity("alnnode-demo", "0.1.0", "ab" * 32, True, "synthetic phantoms", POINT)
# The same as a bundle that says that it was validated on patients, and as one that was trained on patients and says nothing of the kind.
VALIDATED = replace(MODEL, demonstration=False, validated_on="patients of two hospitals, n = 310 nodes")
UNVALIDATED = replace(MODEL, demonstration=False)
CONTEXT = ReportContext("cd" * 32, "ef" * 32, datetime(2026, 5, 4, 3, 2, 1), prior=PriorLookup())
# Everything that a site can ask for.
ALL_KINDS = ReportOptions(
    SRClass.COMPREHENSIVE_3D, CaptureForm.MULTIFRAME, frozenset(set(ObjectRole) - {ObjectRole.SR, ObjectRole.CAPTURE})
)
EVERYTHING = replace(CONTEXT, options=ALL_KINDS)
CROPS = CropSettings(pixels=64)


def header(name: str = "PHANTOM^REPORT", charset: str | list[str] = "ISO_IR 192") -> Dataset:
    found = Dataset()
    found.SpecificCharacterSet = charset
    found.PatientName, found.PatientID, found.PatientBirthDate, found.PatientSex = name, "P-1", "19600102", "F"
    found.StudyInstanceUID, found.SeriesInstanceUID, found.FrameOfReferenceUID = "2.25.11", "2.25.12", "2.25.13"
    found.StudyDate, found.StudyTime, found.AccessionNumber, found.StudyID, found.ReferringPhysicianName = (
        "20260504",
        "030201",
        "A1",
        "1",
        "",
    )
    found.SOPClassUID, found.SOPInstanceUID, found.Modality = CTImageStorage, "2.25.1000", "CT"
    found.Rows, found.Columns, found.PixelSpacing, found.SliceThickness = 200, 220, [0.8, 0.8], 2.0
    found.ImageOrientationPatient, found.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-88, -80, 0]
    return found


def volume(
    source: Dataset | None = None,
    slices: int = 12,
    *,
    prone: bool = False,
    frames: bool = False,
    feet_first: bool = False,
    tilt: float = 0.0,
) -> Volume:
    """A body with lungs. ``feet_first`` is a supine patient scanned feet first; ``tilt`` turns the slices about the x axis, degrees."""
    rng = np.random.default_rng(5)
    voxels = np.full((slices, 200, 220), -1000, np.int16)
    j, i = np.mgrid[0:200, 0:220]
    body = ((j - 100) / 80) ** 2 + ((i - 110) / 105) ** 2 < 1
    voxels[:, body] = -100
    voxels[:, ((j - 100) / 65) ** 2 + ((i - 110) / 60) ** 2 < 1] = 50
    voxels[:, ((j - 100) / 45) ** 2 + ((i - 85) / 22) ** 2 < 1] = -850
    voxels[:, ((j - 100) / 45) ** 2 + ((i - 135) / 22) ** 2 < 1] = -850
    voxels += rng.normal(0, 12, voxels.shape).astype(np.int16)
    x, y = (-1.0 if prone or feet_first else 1.0), (-1.0 if prone else 1.0)
    angle = np.radians(tilt)
    columns = np.array([x, 0, 0])
    rows = np.array([0, y * np.cos(angle), y * np.sin(angle)])
    normal = np.array([0, -np.sin(angle), np.cos(angle)])
    start = np.array([-88 * x, -80 * y, 0.0])
    affine = np.eye(4)
    affine[:3] = np.stack([2.0 * normal, 0.8 * rows, 0.8 * columns, start], axis=1)
    places = [tuple(float(p) for p in start + 2.0 * normal * k) for k in range(slices)]
    if frames:
        refs = tuple(
            SliceRef("1.2.840.10008.5.1.4.1.1.2.1", "2.25.1000", k + 1, places[k], (1.0, -1024.0)) for k in range(slices)
        )
    else:
        refs = tuple(SliceRef(str(CTImageStorage), f"2.25.{1000 + k}", None, places[k], (1.0, -1024.0)) for k in range(slices))
    of = source or header()
    if "ImageOrientationPatient" in of:
        of.ImageOrientationPatient = [round(float(c), 6) + 0.0 for c in (*columns, *rows)]
        of.ImagePositionPatient = [round(p, 6) for p in places[0]]
    return Volume(voxels, affine, refs, of, (2.0, 0.8, 0.8), 2.0)


def finding(
    of: Volume, number: int, side: Side = Side.RIGHT, probability: float = 0.91, at: tuple[int, int] = (90, 25)
) -> Finding:
    row, column = at
    k = 3 + number % 6
    j, i = np.mgrid[0:200, 0:220]
    inside = ((j - row) / 6.5) ** 2 + ((i - column) / 9.5) ** 2 < 1
    of.voxels[k - 1 : k + 2, inside] = 55
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    contour = tuple((float(column + 0.5 + 10 * np.cos(t)), float(row + 0.5 + 7 * np.sin(t))) for t in angle)
    node = Node(
        number=number,
        box=Box(k - 1, row - 7, column - 10, k + 2, row + 8, column + 11),
        side=side,
        slice_index=k,
        contour=contour,
        long_axis=Axis((column - 9.5, row + 0.5), (column + 10.5, row + 0.5), 16.0),
        short_axis=Axis((column + 0.5, row - 6.5), (column + 0.5, row + 7.5), 11.2),
        attenuation=Attenuation(51.3, 88.0, 12.4),
        volume_mm3=812.5,
        score=0.83,
        hilum_fraction=0.124 if number % 2 else None,
        cortex_mm=2.3 if number % 2 else None,
        level=Level.I if number % 2 else None,
        mask=np.repeat(inside[None, row - 7 : row + 8, column - 10 : column + 11], 3, axis=0),
    )
    crops = crop_box(of, node.box, k, CROPS)
    v, u = np.mgrid[0:64, 0:64]
    blob = np.exp(-((v - 32) ** 2 + (u - 32) ** 2) / 200).astype(np.float32)
    heatmaps = (Heatmap(Crop.FSC, blob, crops.fsc_geometry), Heatmap(Crop.ASC, blob[::-1] ** 2, crops.asc_geometry))
    return Finding(
        node,
        Prediction(probability, {Crop.FSC: min(probability + 0.03, 1.0), Crop.ASC: max(probability - 0.03, 0.0)}),
        heatmaps,
        crops,
    )


COVERED = (AxillaCoverage(Side.RIGHT, True), AxillaCoverage(Side.LEFT, True))


def analysis(nodes: int = 2, source: Dataset | None = None, **geometry: float) -> Analysis:
    of = volume(source, **geometry)
    low, high = (Side.RIGHT, Side.LEFT) if of.affine[0, 2] > 0 else (Side.LEFT, Side.RIGHT)
    places = [(low, (90, 25)), (high, (95, 192)), (low, (120, 30)), (high, (125, 190))]
    findings = tuple(
        finding(of, n + 1, places[n % 4][0], probability=(0.91, 0.12, 0.66, 0.0)[n % 4], at=places[n % 4][1])
        for n in range(nodes)
    )
    # Points of a chest, as a report keeps them; where they lie matters to comparisons only.
    surface = tuple((float(10 * n), -5.5, 12.3) for n in range(40))
    return Analysis(of.header, MODEL, of, findings, COVERED, surface=surface, min_short_axis_mm=4.0)


def emptied(of: Analysis, *crops: Crop) -> Analysis:
    """Return the analysis with empty maps of these networks for its first node."""
    first = of.findings[0]
    maps = tuple(replace(one, values=np.zeros_like(one.values)) if one.crop in crops else one for one in first.heatmaps)
    return replace(of, findings=(replace(first, heatmaps=maps), *of.findings[1:]))


def prior_node(number: int, side: Side = Side.RIGHT, short_axis_mm: float = 9.1, probability: float = 0.42) -> PriorNode:
    return PriorNode(
        tracking_uid=f"2.25.88{number}",
        number=number,
        side=side,
        centre=(1.0, 2.0, 3.0),
        long_axis_mm=14.0,
        short_axis_mm=short_axis_mm,
        probability=probability,
    )


def prior_report(*nodes: PriorNode) -> PriorReport:
    record = ComparisonRecord(model_digest=MODEL.digest, slice_mm=2.0, surface=(), covered=tuple(Side), nodes=nodes)
    return PriorReport(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
        sop_instance_uid="2.25.901",
        series_instance_uid="2.25.902",
        study_instance_uid="2.25.903",
        study_date=date(2025, 11, 2),
        record=record,
    )


def followed(of: Analysis) -> Analysis:
    """Return the analysis compared with a prior report: of three nodes one was seen before, one is new, one is not determined; one is no longer found."""
    changes = {}
    findings = []
    for finding in of.findings:
        kind, number = list(Change)[(finding.node.number - 1) % 3], finding.node.number
        before = prior_node(number, finding.node.side) if kind is Change.SEEN else None
        changes[number] = NodeChange(kind, before)
        uid = None if before is None else before.tracking_uid
        findings.append(replace(finding, node=replace(finding.node, tracking_uid=uid)))
    no_longer_found, not_compared = (prior_node(41, Side.LEFT, 7.9, 0.12),), (prior_node(42, Side.RIGHT, 5.2, 0.2),)
    prior = prior_report(
        *(change.prior_node for change in changes.values() if change.prior_node), *no_longer_found, *not_compared
    )
    return replace(
        of, findings=tuple(findings), comparison=Comparison(prior, 183, True, changes, no_longer_found, not_compared)
    )


def deidentified() -> Dataset:
    """Return the header of a de-identified image of a clinical trial with lossy compression."""
    found = header()
    found.PatientIdentityRemoved = "YES"
    found.DeidentificationMethodCodeSequence = [coded("113100", "DCM", "Basic Application Confidentiality Profile")]
    found.LongitudinalTemporalInformationModified = "REMOVED"
    found.ClinicalTrialSponsorName, found.ClinicalTrialProtocolID, found.ClinicalTrialProtocolName = "Sponsor", "T-7", ""
    found.ClinicalTrialSiteID, found.ClinicalTrialSiteName, found.ClinicalTrialSubjectID = "04", "", "S-12"
    found.ClinicalTrialTimePointID, found.ClinicalTrialCoordinatingCenterName = "T0", ""
    found.LossyImageCompression, found.LossyImageCompressionRatio = "01", "9.5"
    found.LossyImageCompressionMethod = "ISO_10918_1"
    return found


def ordered() -> Dataset:
    """Return the header of an image that answers two orders of a hospital with issuers of its numbers."""
    found = header()
    found.SeriesNumber, found.AdmissionID, found.IssuerOfPatientID = 4, "ADM-9", "HOSPITAL"
    found.IssuerOfAccessionNumberSequence = [issuer("RIS")]
    found.IssuerOfAdmissionIDSequence = [issuer("HIS")]
    qualifiers = Dataset()
    qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType = "1.2.3.4", "ISO"
    found.IssuerOfPatientIDQualifiersSequence = [qualifiers]
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID, other.TypeOfPatientID = "OLD-1", "FORMER", "TEXT"
    found.OtherPatientIDsSequence = [other]
    orders = []
    for number in ("A1", "A2"):
        order = Dataset()
        order.StudyInstanceUID, order.AccessionNumber = "2.25.11", number
        order.IssuerOfAccessionNumberSequence = [issuer("RIS")]
        order.RequestedProcedureID, order.RequestedProcedureDescription = f"RP-{number}", "CT chest"
        order.ScheduledProcedureStepID = f"SPS-{number}"
        orders.append(order)
    found.RequestAttributesSequence = orders
    return found


def as_sent(source: Dataset) -> Dataset:
    """Return the header as read from a file: undecoded, with unchecked values."""
    source.file_meta = FileMetaDataset()
    source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    source.file_meta.MediaStorageSOPClassUID, source.file_meta.MediaStorageSOPInstanceUID = (
        source.SOPClassUID,
        source.SOPInstanceUID,
    )
    buffer = io.BytesIO()
    source.save_as(buffer, enforce_file_format=True)
    return dcmread(io.BytesIO(buffer.getvalue()))


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def issuer(name: str) -> Dataset:
    item = Dataset()
    item.LocalNamespaceEntityID = name
    return item


def own_frames(of: Analysis) -> Analysis:
    """Return the analysis of a series in which every image has a Frame of Reference of its own, as in LIDC-IDRI-0314."""
    slices = tuple(replace(s, frame_of_reference=f"2.25.13{k}") for k, s in enumerate(of.volume.slices))
    return replace(of, volume=replace(of.volume, slices=slices))


@cache
def variants() -> dict[str, Analysis]:
    """Return one analysis of each kind that a report must handle. Tests share them and do not change them."""
    bare = header()
    for keyword in (
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyTime",
        "ReferringPhysicianName",
        "SliceThickness",
    ):
        del bare[keyword]
    frames = header()
    frames.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    frames.NumberOfFrames = 12
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness"):
        del frames[keyword]
    japanese = header("Yamada^Hanako=山田^花子=やまだ^はなこ", "ISO_IR 192")
    japanese.TimezoneOffsetFromUTC = "+0900"
    partial = analysis(1)
    marked = analysis(2)
    by_reader = tuple(
        replace(f, node=replace(f.node, source=NodeSource.READER, score=1.0, tracking_uid=f"2.25.77{n}", mask=None))
        for n, f in enumerate(marked.findings)
    )
    authors = (NodeSource.DEVICE, NodeSource.ASSISTED)
    by_software = tuple(replace(f, node=replace(f.node, source=author)) for f, author in zip(by_reader, authors, strict=True))
    return {
        "none": analysis(0),
        "one": analysis(1),
        "twelve": analysis(12),
        "forty": analysis(40),
        "reader": replace(marked, findings=by_reader),
        "software": replace(marked, findings=by_software),
        "prone": analysis(2, prone=True),
        "feet-first": analysis(2, feet_first=True),
        "tilted": analysis(2, tilt=20.0),
        "enhanced": analysis(2, frames, frames=True),
        "bare": analysis(2, bare),
        "greek": analysis(2, header("Παπαδοπούλου^Μαρία")),
        "japanese": analysis(1, japanese),
        "partial": replace(
            partial,
            coverage=(
                AxillaCoverage(Side.RIGHT, True),
                AxillaCoverage(Side.LEFT, False, "cut off at the side of the image"),
            ),
        ),
        "not-analysed": Analysis(
            header(), MODEL, None, not_analysed="the slices are 8 mm apart; the analysis needs 5 mm or less"
        ),
        "follow-up": followed(analysis(3)),
        "follow-up-none": followed(analysis(0)),
        "de-identified": analysis(2, deidentified()),
        "ordered": analysis(2, ordered()),
        "own-frames": own_frames(analysis(2)),
        "own-threshold": replace(
            analysis(2), model=replace(MODEL, operating_point=OperatingPoint(0.7, None, None, "threshold set by the site"))
        ),
    }


def built(of: Analysis, context: ReportContext = CONTEXT) -> Sequence[ResultObject]:
    """Return the result objects of an analysis. Those of a variant are built once; tests share them and do not change them."""
    name = next((name for name, variant in variants().items() if variant is of), None)
    return report.build(of, context) if name is None else _built(name, context)


@cache
def _built(name: str, context: ReportContext) -> Sequence[ResultObject]:
    return tuple(report.build(variants()[name], context))
