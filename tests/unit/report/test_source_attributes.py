"""What results carry on from their source: identity, orders, a loss of quality, frames of reference."""

import io
from dataclasses import replace

import pytest
from analyses import CONTEXT, EVERYTHING, Analysis, analysis, as_sent, deidentified, header, variants
from pydicom import Dataset, dcmread

from alnnode import report
from alnnode.records import MapFrames, ObjectRole, ReportOptions, ResultReference
from alnnode.settings import Report

PICTURES = {ObjectRole.CAPTURE, ObjectRole.SEGMENTATION, ObjectRole.PARAMETRIC_MAP}
DOCUMENTS = {ObjectRole.SR, ObjectRole.RESULTS_TREE, ObjectRole.TEXT, ObjectRole.KEY_OBJECTS}


def made(of: Analysis, context=EVERYTHING) -> list[tuple[ObjectRole, Dataset]]:
    return [(item.role, dcmread(io.BytesIO(item.data))) for item in report.build(of, context)]


def walk(item: Dataset):
    yield item
    for child in item.get("ContentSequence", []):
        yield from walk(child)


def test_results_of_a_de_identified_source_say_how() -> None:
    source = deidentified()
    for role, item in made(variants()["de-identified"]):
        assert item.PatientIdentityRemoved == "YES", role
        assert item.DeidentificationMethodCodeSequence == source.DeidentificationMethodCodeSequence
        for keyword in ("SponsorName", "ProtocolID", "ProtocolName", "SiteID", "SiteName", "SubjectID", "TimePointID"):
            assert item[f"ClinicalTrial{keyword}"].value == source[f"ClinicalTrial{keyword}"].value, keyword


def test_what_is_derived_from_a_lossy_image_says_so() -> None:
    for role, item in made(variants()["de-identified"]):
        if role in PICTURES:
            assert item.LossyImageCompression == "01", role
            assert (item.LossyImageCompressionRatio, item.LossyImageCompressionMethod) == (9.5, "ISO_10918_1")
    for role, item in made(variants()["one"]):
        assert item.get("LossyImageCompression", "00") == "00", role


def test_a_ris_can_match_every_result_with_its_orders() -> None:
    of = variants()["ordered"]
    for role, item in made(of):
        keyword = "ReferencedRequestSequence" if role in DOCUMENTS else "RequestAttributesSequence"
        orders = item[keyword].value
        assert [order.AccessionNumber for order in orders] == ["A1", "A2"], role
        assert [order.RequestedProcedureID for order in orders] == ["RP-A1", "RP-A2"]
        assert orders[0].IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"
        if role in DOCUMENTS:
            assert "RequestAttributesSequence" not in item
            for order in orders:  # type 1 and 2 of PS3.3 C.17.2
                assert order.StudyInstanceUID == "2.25.11"
                for name in ("Placer", "Filler"):
                    assert f"{name}OrderNumberImagingServiceRequest" in order
                assert "RequestedProcedureCodeSequence" in order
                assert "ReferencedStudySequence" in order


def test_a_ris_can_match_a_rejection_note_with_its_orders() -> None:
    """A Key Object Selection has no Request Attributes Sequence; its orders are in its Referenced Request Sequence (PS3.3 C.17.6.2)."""
    old = (ResultReference(ObjectRole.SR, "1.2.840.10008.5.1.4.1.1.88.33", "2.25.5", "2.25.6", "2.25.11"),)
    withdrawing = replace(CONTEXT, superseded=old, options=ReportOptions(kinds=frozenset({ObjectRole.REJECTION})))
    of = replace(variants()["ordered"], volume=None, findings=(), not_analysed="no reason")
    role, note = made(of, withdrawing)[-1]
    assert role is ObjectRole.REJECTION
    assert "RequestAttributesSequence" not in note
    assert [order.AccessionNumber for order in note.ReferencedRequestSequence] == ["A1", "A2"]


@pytest.mark.parametrize(
    "keyword",
    [
        "IssuerOfAccessionNumberSequence", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "AdmissionID",
        "IssuerOfAdmissionIDSequence", "IssuerOfPatientID",
    ],
)  # fmt: skip
def test_numbers_come_with_their_issuers(keyword: str) -> None:
    of = variants()["ordered"]
    for role, item in made(of, CONTEXT):
        assert item[keyword].value == of.header[keyword].value, role


JAPANESE = ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"])


@pytest.mark.parametrize(
    ("person", "charset"),
    [
        JAPANESE,
        ("Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"]),
        ("Wang^XiaoDong=王^小东", "GB18030"),
        ("Buc^Jérôme", "ISO_IR 100"),
    ],
)
def test_results_are_in_unicode_where_the_site_wants_them_so(person: str, charset) -> None:
    of = analysis(1, as_sent(header(person, charset)))
    for role, item in made(of, replace(EVERYTHING, options=replace(EVERYTHING.options, unicode=True))):
        assert item.SpecificCharacterSet == "ISO_IR 192", role
        assert str(item.PatientName) == person


def test_a_map_of_several_character_sets_is_in_unicode_and_nothing_else_is() -> None:
    """OHIF 3.13 cannot decode code extensions in a map, and leaves its colours on the CT."""
    of = analysis(1, as_sent(header(*JAPANESE)))
    for role, item in made(of):
        assert (item.SpecificCharacterSet == "ISO_IR 192") == (role is ObjectRole.PARAMETRIC_MAP), role
        assert str(item.PatientName) == JAPANESE[0]


def test_the_default_map_has_a_frame_for_every_slice() -> None:
    of = analysis(3)
    maps = [
        item
        for role, item in made(of, replace(CONTEXT, options=Report(kinds=("pmap",)).options))
        if role is ObjectRole.PARAMETRIC_MAP
    ]
    assert [int(item.NumberOfFrames) for item in maps] == [12, 12]


def test_a_map_of_some_slices_states_no_spacing_but_its_own() -> None:
    options = ReportOptions(kinds=frozenset({ObjectRole.PARAMETRIC_MAP}), map_frames=MapFrames.NODES)

    def measures(of: Analysis) -> Dataset:
        item = next(item for role, item in made(of, replace(CONTEXT, options=options)) if role is ObjectRole.PARAMETRIC_MAP)
        return item.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]

    def on(*chosen: int) -> Analysis:
        of = analysis(4)  # on the slices 4, 5, 6 and 7, 2 mm apart
        return replace(of, findings=tuple(of.findings[n] for n in chosen))

    assert "SpacingBetweenSlices" not in measures(on(0, 1, 3))
    assert measures(on(0, 3)).SpacingBetweenSlices == 6.0
    assert measures(on(0, 1, 2)).SpacingBetweenSlices == 2.0


def test_each_image_in_the_library_has_its_own_frame_of_reference() -> None:
    of = variants()["own-frames"]
    expected = {s.sop_instance_uid: s.frame_of_reference for s in of.volume.slices}
    (sr,) = [item for role, item in made(of, CONTEXT) if role is ObjectRole.SR]
    library = next(
        i for i in walk(sr) if i.ValueType == "CONTAINER" and i.ConceptNameCodeSequence[0].CodeMeaning == "Image Library"
    )
    images = [item for item in walk(library) if item.ValueType == "IMAGE"]
    drawn = [item for item in walk(sr) if item.ValueType == "IMAGE" and item not in images]
    listed, used = (sorted(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in some) for some in (images, drawn))
    assert listed == sorted(set(used) & expected.keys()), "each image that a group draws on, once"
    assert len(listed) == 4
    for image in images:
        (frame,) = [item.UID for item in image.ContentSequence if item.ValueType == "UIDREF"]
        assert frame == expected[image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID]


def test_one_object_over_several_frames_of_reference_has_one_of_its_own() -> None:
    objects = [
        item
        for role, item in made(variants()["own-frames"])
        if role in {ObjectRole.SEGMENTATION, ObjectRole.PARAMETRIC_MAP, ObjectRole.STRUCTURE_SET}
    ]
    (frame,) = {item.FrameOfReferenceUID for item in objects}
    assert not frame.startswith("2.25.13")
