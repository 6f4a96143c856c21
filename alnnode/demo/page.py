"""Write ``report.html``: the report as a table, the captures as pictures, the durations. One file, without scripts and network."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom import Dataset

STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
.notice{background:#7a1f00;color:#fff;padding:.6rem 1rem;font-weight:600}
table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{text-align:left;padding:.15rem .6rem;border-bottom:1px solid #8884;vertical-align:top}
td.name{white-space:nowrap}figure{margin:1.5rem 0}img{max-width:100%;height:auto;border:1px solid #8886}
.group td{font-weight:600;background:#8882}
"""


def render(
    banner: str, report: Dataset, captures: Sequence[Dataset], timings: Sequence[tuple[str, str]], checks: Sequence[str]
) -> str:
    """Return the HTML page.

    Args:
        banner: the notice of the model.
        report: the structured report that came back.
        captures: the secondary captures that came back, in order.
        timings: the steps with their durations.
        checks: what was verified, one sentence each.
    """
    rows = "".join(_rows(report))
    figures = "".join(_figure(capture) for capture in captures)
    times = "".join(f"<tr><td>{html.escape(what)}</td><td>{html.escape(took)}</td></tr>" for what, took in timings)
    verified = "".join(f"<li>{html.escape(line)}</li>" for line in checks)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>alnnode demonstration</title><style>{STYLE}</style></head><body><p class=notice>{html.escape(banner)}</p>"
        "<h1>What came back to the PACS</h1><p>A synthetic phantom was sent to the node by C-STORE; these objects came back the same way. "
        "The measurements describe a synthetic phantom, not a patient.</p>"
        f"<h2>Verified</h2><ul>{verified}</ul><h2>Captures</h2>{figures}"
        f"<h2>Structured report</h2><table>{rows}</table><h2>Timings</h2><table>{times}</table></body></html>\n"
    )


def _figure(capture: Dataset) -> str:
    buffer = io.BytesIO()
    Image.fromarray(capture.pixel_array).save(buffer, "PNG", optimize=True)
    caption = html.escape(str(capture.get("SeriesDescription", "capture")))
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img alt="{caption}, instance {capture.get("InstanceNumber", "")}" src="data:image/png;base64,{data}"></figure>'


def _rows(item: Dataset, depth: int = 0) -> Iterator[str]:
    """Yield a table row for each item of the content tree (PS3.3 C.17.3), in order."""
    name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else str(item.get("ValueType", ""))
    container = item.get("ValueType") == "CONTAINER"
    style = " class=group" if container else ""
    yield (
        f'<tr{style}><td class=name style="padding-left:{0.6 + depth * 1.2}rem">{html.escape(str(name))}</td>'
        f"<td>{html.escape(_value(item))}</td></tr>"
    )
    for child in item.get("ContentSequence", []):
        yield from _rows(child, depth + 1)


def _value(item: Dataset) -> str:  # noqa: PLR0911 - one line per value type
    match item.get("ValueType"):
        case "CODE":
            return str(item.ConceptCodeSequence[0].CodeMeaning)
        case "NUM":
            measured = item.MeasuredValueSequence[0]
            unit = measured.MeasurementUnitsCodeSequence[0]
            return f"{measured.NumericValue} {unit.CodeMeaning if unit.CodeValue != '%' else '%'}"
        case "TEXT":
            return str(item.TextValue)
        case "UIDREF":
            return str(item.UID)
        case "DATETIME":
            return str(item.DateTime)
        case "PNAME":
            return str(item.PersonName)
        case "IMAGE" | "COMPOSITE":
            return f"instance …{item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID[-16:]}"
        case "SCOORD":
            return f"{item.GraphicType}, {len(item.GraphicData) // 2} points"
        case _:
            return ""
