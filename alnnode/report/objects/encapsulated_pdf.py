"""The answer as Encapsulated PDF (PS3.3 A.45.1): pages of text, for systems that display no other kind of report."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedPDFStorage

from alnnode.records import ObjectRole
from alnnode.report import answer, codes, wording
from alnnode.report.ascii_text import ascii_words
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.series_naming import series_number
from alnnode.report.source_images import main_image
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Analysis, ReportContext, ResultObject

# A4 in points. The characters of Courier are 0.6 of its size wide, so that lines can be broken without a table of widths.
WIDTH, HEIGHT, MARGIN, SIZE, LEADING = 595, 842, 48, 10, 14
COLUMNS, ROWS = int((WIDTH - 2 * MARGIN) / (0.6 * SIZE)), (HEIGHT - 2 * MARGIN) // LEADING

KIND = ObjectKind(ObjectRole.PDF, "PDF", 10, ObjectNature.OTHER, Code("RESULT-PDF", codes.SCHEME, "Report as PDF"))


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return one document for any result of the analysis. Its pages hold no patient data."""
    image = main_image(analysis)
    data = document(lines(analysis))
    made = Dataset()
    made.SOPClassUID = EncapsulatedPDFStorage
    made.SOPInstanceUID = result_uid(analysis, context, "pdf", "instance")
    made.SeriesInstanceUID = result_uid(analysis, context, "pdf", "series")
    made.SeriesNumber = series_number(analysis, KIND)
    made.InstanceNumber = 1
    made.Modality = "DOC"
    made.ConversionType = "WSD"
    made.BurnedInAnnotation = "NO"  # PS3.3 C.24.2: the pages hold no patient data
    made.AcquisitionDateTime = None
    made.DocumentTitle = "Axillary lymph nodes on CT"
    made.ConceptNameCodeSequence = [CodedConcept.from_code(codes.DIAGNOSTIC_IMAGING_REPORT)]
    made.SourceInstanceSequence = [_reference(image)]
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocumentLength = len(data)
    made.EncapsulatedDocument = data + b"\0" * (len(data) % 2)
    made["EncapsulatedDocument"].VR = "OB"
    return [finish(made, analysis, context, KIND)]


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def lines(analysis: Analysis) -> list[str]:
    """Return the answer, followed by all nodes, as ASCII lines that fit the width of a page."""
    said = answer.lines(analysis)
    if analysis.findings:
        said += ["", "All nodes, most probable first:"]
        said += [answer.node_line(finding, analysis) for finding in wording.by_probability(analysis.findings)]
    broken = [textwrap.wrap(ascii_words(line), COLUMNS, subsequent_indent="  ") or [""] for line in said]
    return [line for part in broken for line in part]


def document(text: Sequence[str]) -> bytes:
    """Return a PDF 1.4 file of pages with these lines (ISO 32000-1); the same lines give the same bytes."""
    pages = [text[start : start + ROWS] for start in range(0, len(text), ROWS)] or [[]]
    # Objects: 1 catalogue, 2 tree of pages, 3 font, then pages and their contents alternately.
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>",
    ]
    for number, page in enumerate(pages):
        content = _content(page)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {WIDTH} {HEIGHT}] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    return _file(objects)


def _content(page: Sequence[str]) -> bytes:
    shown = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in page]
    head = f"BT /F1 {SIZE} Tf {LEADING} TL {MARGIN} {HEIGHT - MARGIN - SIZE} Td"
    return "\n".join([head, *(f"({line}) '" for line in shown), "ET"]).encode("ascii")


def _file(objects: Sequence[bytes]) -> bytes:
    data, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(data)
