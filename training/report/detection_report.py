"""Metrics of a detector on phantoms as plain data and as a table, and pictures of missed nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alnnode import phantom
from training.evaluate import operating_points, roc
from training.evaluate.froc import (
    FALSE_POSITIVE_RATES,
    MIN_SHORT_AXIS_MM,
    SIZE_BANDS,
    DetectionResult,
    Target,
    false_positives_per_volume,
    sensitivity_at_rate,
    sensitivity_at_threshold,
    touching_pairs_separated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from alnnode.phantom import PhantomSettings
    from alnnode.records import Interval

HALF_MM = 24.0
COLUMNS = 6


def detection_metrics(result: DetectionResult, threshold: float) -> dict[str, Any]:
    """Return all metrics as plain data; intervals are [value, low, high]."""
    counted = result.counted_targets()
    found = [target for target in counted if target.score >= threshold]
    return {
        "volumes": result.volumes,
        "nodes": len(counted),
        "threshold": threshold,
        "false_positives_per_volume": false_positives_per_volume(result, threshold),
        "sensitivity": _triple(sensitivity_at_threshold(result, threshold)),
        "sensitivity_at_rate": {f"{rate:g}": _triple(sensitivity_at_rate(result, rate)) for rate in FALSE_POSITIVE_RATES},
        "bands": {
            name: [sum(t.score >= threshold for t in group), len(group)] for name, group in _groups(result).items() if group
        },
        "told_apart": list(touching_pairs_separated(result, threshold)),
        "median_dice": _median(t.dice for t in found),
        "median_distance_mm": _median(t.distance_mm for t in found),
        "median_short_axis_error_mm": _median(abs(t.short_axis_error_mm or 0.0) for t in found),
        "side_right": [sum(bool(t.side_is_right) for t in found), len(found)],
        "level_right": [sum(bool(t.level_is_right) for t in found), sum(t.level_is_right is not None for t in found)],
        **_classified(result, found, threshold),
    }


def _classified(result: DetectionResult, found: list[Target], threshold: float) -> dict[str, Any]:
    """Return the AUROC of the found nodes, and that of patients by the highest probability among their marks."""
    labels = np.array([t.malignant for t in found])
    patients = np.array([str(t.patient) for t in found])
    scores = np.array([t.probability or 0.0 for t in found])
    indices = sorted({t.patient for t in result.targets} | {m.patient for m in result.marks})
    involved = np.array([any(t.malignant for t in result.targets if t.patient == n) for n in indices])
    highest = np.array(
        [max((m.probability for m in result.marks if m.patient == n and m.score >= threshold), default=0.0) for n in indices]
    )
    out: dict[str, Any] = {}
    if 0 < labels.sum() < len(labels):
        out["auroc_found_nodes"] = _triple(roc.auroc(labels, scores, patients))
    if 0 < involved.sum() < len(involved):
        out["auroc_patients"] = _triple(roc.auroc(involved, highest, np.array([str(n) for n in indices])))
    return out


def _groups(result: DetectionResult) -> dict[str, list[Target]]:
    """Return all targets by size, and the counted targets by slice thickness, position and label."""
    groups = {_band(low, high): [t for t in result.targets if low <= t.short_axis_mm < high] for low, high in SIZE_BANDS}
    counted = result.counted_targets()
    attributes: list[tuple[str, Callable[[Target], str]]] = [
        ("slices of", lambda t: f"{t.thickness_mm:g} mm"),
        ("position", lambda t: t.position),
        ("drawn as", lambda t: "metastatic" if t.malignant else "benign"),
    ]
    for name, key in attributes:
        for value in sorted({key(t) for t in counted}):
            groups[f"{name} {value}"] = [t for t in counted if key(t) == value]
    return groups


def _band(low: float, high: float) -> str:
    return f"short axis {low:g} mm or more" if np.isinf(high) else f"short axis {low:g} to {high:g} mm"


def detection_table(figures: dict[str, Any]) -> str:
    """Return the metrics as a Markdown table."""
    lines = ["| figure | value | 95 % interval |", "|---|---|---|"]
    for rate, value in figures["sensitivity_at_rate"].items():
        lines.append(
            f"| sensitivity (short axis ≥ {MIN_SHORT_AXIS_MM:g} mm) at ≤ {rate} false positives per volume | {_row(value)} |"
        )
    lines.append(
        f"| sensitivity at the operating threshold {figures['threshold']:.2f} "
        f"({figures['false_positives_per_volume']:.2f} false positives per volume) | {_row(figures['sensitivity'])} |"
    )
    for name, (hits, count) in figures["bands"].items():
        value = operating_points.wilson_interval(hits, count)
        lines.append(f"| … {name} ({hits} of {count}) | {value.value:.3f} | {value.low:.3f} to {value.high:.3f} |")
    separated, pairs = figures["told_apart"]
    if pairs:
        value = operating_points.wilson_interval(separated, pairs)
        lines.append(
            f"| touching pairs told apart ({separated} of {pairs}) | {value.value:.3f} | {value.low:.3f} to {value.high:.3f} |"
        )
    lines += [
        f"| Dice of found nodes, median | {figures['median_dice']:.3f} | |",
        f"| distance of the centres, median | {figures['median_distance_mm']:.2f} mm | |",
        f"| error of the short axis, median of the absolute value | {figures['median_short_axis_error_mm']:.2f} mm | |",
        f"| side right | {figures['side_right'][0]} of {figures['side_right'][1]} | |",
        f"| level right, of those told | {figures['level_right'][0]} of {figures['level_right'][1]} | |",
    ]
    for key, name in (("auroc_found_nodes", "AUROC, nodes found and classified"), ("auroc_patients", "AUROC, patients")):
        if key in figures:
            lines.append(f"| {name} | {_row(figures[key])} |")
    return "\n".join(lines)


def draw_misses(result: DetectionResult, threshold: float, seed: int, phantoms: PhantomSettings, path: Path) -> int:
    """Write one picture of all counted nodes that were missed, and return their number."""
    missed = [target for target in result.counted_targets() if target.score < threshold]
    tiles, made = [], None
    for target in missed:
        if made is None or made.index != target.patient:
            made = phantom.make_patient(seed, target.patient, phantoms)
        tiles.append(_tile(made, target))
    if tiles:
        rows = [tiles[n : n + COLUMNS] for n in range(0, len(tiles), COLUMNS)]
        width, height = tiles[0].size
        sheet = Image.new("RGB", (width * min(COLUMNS, len(tiles)), height * len(rows)))
        for row, line in enumerate(rows):
            for column, tile in enumerate(line):
                sheet.paste(tile, (column * width, row * height))
        sheet.save(path)
    return len(missed)


def _tile(made: phantom.Phantom, target: Target) -> Image.Image:
    node = made.nodes[target.number - 1]
    half = round(HALF_MM / made.spacing[1])
    rows, columns = made.hu.shape[1:]
    j = int(np.clip((node.box.j0 + node.box.j1) // 2, half, rows - half))
    i = int(np.clip((node.box.i0 + node.box.i1) // 2, half, columns - half))
    part = made.hu[node.slice_index, j - half : j + half, i - half : i + half]
    inside = made.labels[node.slice_index, j - half : j + half, i - half : i + half] == target.number
    grey = np.clip((part.astype(np.float32) + 160) / 400 * 255, 0, 255).astype(np.uint8)
    shown = np.repeat(grey[..., None], 3, axis=2)
    edge = inside & ~(np.roll(inside, 1, 0) & np.roll(inside, -1, 0) & np.roll(inside, 1, 1) & np.roll(inside, -1, 1))
    shown[edge] = (255, 220, 0)
    picture = Image.fromarray(shown).resize((256, 256), Image.Resampling.NEAREST)
    text = f"phantom {target.patient}, node {target.number}: {target.short_axis_mm:.1f} mm"
    ImageDraw.Draw(picture).text((4, 4), text, fill=(255, 255, 255), font=ImageFont.load_default(13))
    return picture


def _triple(value: Interval) -> list[float]:
    return [value.value, value.low, value.high]


def _row(value: list[float]) -> str:
    return f"{value[0]:.3f} | {value[1]:.3f} to {value[2]:.3f}"


def _median(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else float("nan")
