"""Chart specifications for plotly.js as plain dicts.

Colours are the names of CSS variables (``--c0``), which the page replaces by the colours of the theme in use. Plotly
reads a few HTML tags in its texts, so every name that comes from a record is escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from genbench.record import Curve, MetricResult, Record
from genbench.report.names import format_seconds, metric_name
from genbench.report.placement import place
from genbench.report.tables import CEILING, Column, interval_text, value_text

COLOURS = 8
TINTS = 6
MAX_NAMED = 12
"""Of more points than these only the Pareto front has names; the others tell theirs when pointed at."""
Point = tuple[Record, str, MetricResult, MetricResult]
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down")


@dataclass(frozen=True)
class Chart:
    """A figure: its place in the page, height in CSS pixels, and what it shows in words."""

    id: str
    title: str
    alt: str
    height: int
    data: list[dict[str, Any]] = field(repr=False)
    layout: dict[str, Any] = field(repr=False)

    def spec(self) -> dict[str, Any]:
        """What the page's script needs to draw it; lengths that are too large for a number are none."""
        values = asdict(self)
        return {key: _finite_or_none(values[key]) for key in ("id", "data", "layout")}


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_none(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite_or_none(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def family_colours(records: Sequence[Record]) -> dict[str, int]:
    """Families of the models in order of appearance, each with its number in the palette."""
    families = list(dict.fromkeys(record.family for record in records if not record.control))
    return {family: i % COLOURS for i, family in enumerate(families)}


def chart_text(text: str) -> str:
    """``text`` for plotly, which reads a few HTML tags; quotes it shows as they are."""
    return html.escape(text, quote=False)


def axis_of(title: str, **more: Any) -> dict[str, Any]:
    """An axis in the page's style."""
    return {
        "title": {"text": title, "font": {"size": 12}, "standoff": 8},
        "gridcolor": "--grid",
        "linecolor": "--line",
        "tickcolor": "--line",
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
        **more,
    }


def layout_of(height: int, x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A layout in the page's style, without a legend."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 12, "color": "--muted"},
        "hoverlabel": {"bgcolor": "--surface", "bordercolor": "--line", "font": {"color": "--text"}},
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "xaxis": x,
        "yaxis": y,
        **more,
    }


def _points(records: Sequence[Record], labels: Sequence[str], x_name: str, quality: Column) -> list[Point]:
    points = []
    for record, label in zip(records, labels, strict=True):
        x, y = record.find(x_name), quality.of(record)
        if record.control or x is None or y is None or y.value is None or x.value is None or x.value <= 0:
            continue
        points.append((record, label, x, y))
    return points


def tradeoff(
    records: Sequence[Record], labels: Sequence[str], x_name: str, quality: Column, colours: Mapping[str, int]
) -> Chart | None:
    """Quality against a cost on a log axis, one point a model with its 95 % intervals; None without two models."""
    points = _points(records, labels, x_name, quality)
    if len(points) < 2:
        return None
    ceiling = next((quality.of(r) for r in records if r.control and r.model == CEILING and r.status == "ok"), None)
    level = None if ceiling is None else ceiling.value
    x_range = _padded([math.log10(_number(x)) for _, _, x, _ in points])
    y_range, logarithmic = _quality_range([y for *_, y in points], level)
    shares = [_share(point, x_range, y_range, logarithmic) for point in points]
    named = set(range(len(points))) if len(points) <= MAX_NAMED else _front(points, x_name == "images_per_second")
    places = place(shares, [point[1] if i in named else "" for i, point in enumerate(points)])
    data = [
        _point_trace(point, colours, logarithmic, places[i] if i in named else None) for i, point in enumerate(points)
    ]
    shapes = [] if level is None else [_level_line(level)]
    notes = [] if level is None else [_level_note(level, logarithmic)]
    margin = {"l": 8, "r": 12 if level is None else 40, "t": 12, "b": 8}
    y_axis = axis_of(chart_text(f"{quality.title} {quality.arrow}".strip()), range=y_range)
    y_axis |= _LOG if logarithmic else {"nticks": 7}
    layout = layout_of(380, axis_of(_x_title(x_name), range=x_range, **_LOG), y_axis, shapes=shapes, annotations=notes)
    title = f"{quality.title} against {_x_title(x_name).lower()}"
    if len(named) < len(points):
        title += " (named: the Pareto front)"
    order = sorted(points, key=lambda p: _number(p[3]), reverse=bool(quality.higher_is_better))
    words = ", ".join(f"{label} {value_text(y)}" for _, label, _, y in order)
    alt = f"{title}, best first: {words}."
    return Chart(f"chart-{x_name.replace('_', '-')}", title, alt, 380, data, layout | {"margin": margin})


_LOG = {"type": "log", "dtick": 1, "exponentformat": "SI"}


def _number(metric: MetricResult) -> float:
    return 0.0 if metric.value is None else metric.value


def _padded(values: Sequence[float], share: float = 0.12, least: float = 0.15) -> list[float]:
    margin = max(share * (max(values) - min(values)), least)
    return [min(values) - margin, max(values) + margin]


def _quality_range(metrics: Sequence[MetricResult], level: float | None) -> tuple[list[float], bool]:
    """Range of the quality axis, and whether it is logarithmic: where values differ more than twentyfold."""
    values = [_number(m) for m in metrics] + ([] if level is None else [level])
    bounds = [bound for m in metrics if m.ci95 is not None for bound in m.ci95]
    if min(values) > 0 and max(values) > 20 * min(values):
        return _padded([math.log10(v) for v in (*values, *bounds) if v >= 0.5 * min(values)]), True
    everything = [*values, *bounds]
    return _padded(everything, least=0.02 * max(abs(v) for v in everything) or 1.0), False


def _front(points: Sequence[Point], more_is_better: bool) -> set[int]:
    """Positions of the points that no other one is at least as good as in both figures, and better in one."""
    signs = -1.0 if more_is_better else 1.0, -1.0 if points[0][3].higher_is_better else 1.0
    values = [(signs[0] * _number(x), signs[1] * _number(y)) for _, _, x, y in points]
    return {i for i, (a, b) in enumerate(values) if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in values)}


def _share(point: Point, x_range: Sequence[float], y_range: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    _, _, x, y = point
    height = math.log10(_number(y)) if logarithmic else _number(y)
    across = (math.log10(_number(x)) - x_range[0]) / (x_range[1] - x_range[0])
    return across, (height - y_range[0]) / (y_range[1] - y_range[0])


def _x_title(name: str) -> str:
    titles = {"images_per_second": "Sampled images per second", "parameters": "Parameters"}
    return titles.get(name, metric_name(name).label)


def _point_trace(point: Point, colours: Mapping[str, int], logarithmic: bool, position: str | None) -> dict[str, Any]:
    """A point with its intervals; with its name where that has a position."""
    record, label, x, y = point
    number = colours.get(record.family, 0)
    name, family = chart_text(label), chart_text(record.family)
    hover = f"<b>{name}</b> · {family}<br>{metric_name(y.name).label} {value_text(y)} {interval_text(y)}"
    hover += f"<br>{metric_name(x.name).label} {value_text(x)} {interval_text(x)}<extra></extra>"
    return {
        "type": "scatter",
        "mode": "markers" if position is None else "markers+text",
        "name": name,
        "x": [x.value],
        "y": [y.value],
        "text": [f"  {name}  " if position and position.startswith("middle") else name],
        "textposition": position or "middle right",
        "textfont": {"color": "--text", "size": 12},
        "cliponaxis": False,
        "marker": {
            "color": f"--c{number}",
            "symbol": SYMBOLS[number],
            "size": 11,
            "line": {"color": "--text", "width": 1},
        },
        "error_x": _error_bar(x, number, True),
        "error_y": _error_bar(y, number, logarithmic),
        "hovertemplate": hover,
    }


def _error_bar(metric: MetricResult, number: int, logarithmic: bool) -> dict[str, Any]:
    if metric.ci95 is None or metric.value is None:
        return {"visible": False}
    low, high = metric.ci95
    if logarithmic:
        low = max(low, 0.02 * metric.value)
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - metric.value)],
        "arrayminus": [max(0.0, metric.value - low)],
        "color": f"--c{number}",
        "thickness": 1.5,
        "width": 4,
    }


def _level_line(level: float) -> dict[str, Any]:
    line = {"color": "--muted", "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level, "line": line, "layer": "below"}


def _level_note(level: float, logarithmic: bool) -> dict[str, Any]:
    return {
        "xref": "paper",
        "x": 1,
        "y": math.log10(level) if logarithmic else level,
        "xanchor": "left",
        "xshift": 4,
        "align": "left",
        "text": "test<br>split",
        "showarrow": False,
        "font": {"size": 11, "color": "--muted"},
    }


def training_chart(record: Record, label: str, number: int, index: int) -> Chart | None:
    """Training figures above, validation figures below, over the steps; None where there is no curve."""
    curves = {} if record.training is None else {k: c for k, c in record.training.curves.items() if len(c.step) > 1}
    if not curves:
        return None
    below = [name for name in curves if name.startswith("val")]
    above = [name for name in curves if name not in below]
    panels = [names for names in (above, below) if names]
    data: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    for panel, names in enumerate(panels):
        axis = "" if panel == 0 else "2"
        for i, name in enumerate(names):
            data.append({**_curve_trace(name, curves[name], number, i, axis), "showlegend": len(names) > 1})
        if panel == 1:
            more["yaxis2"] = axis_of(_panel_title(names), domain=[0, 0.44], nticks=5)
    if any(len(names) > 1 for names in panels):
        more["showlegend"] = True
        more["legend"] = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 11}}
    top = axis_of(_panel_title(panels[0]), domain=[0.56, 1] if len(panels) > 1 else [0, 1], nticks=5)
    x_axis = axis_of("Step", anchor="y2" if len(panels) > 1 else "y", nticks=6)
    best = None if record.training is None else record.training.best_step
    if best is not None:
        line = {"color": "--muted", "width": 1, "dash": "dot"}
        more["shapes"] = [{"type": "line", "yref": "paper", "x0": best, "x1": best, "y0": 0, "y1": 1, "line": line}]
    height = 300
    alt = f"Training of {label}: " + ", ".join(_curve_words(name, curve) for name, curve in curves.items())
    alt += "" if best is None else f"; best validation at step {best}"
    return Chart(f"chart-training-{index}", label, alt + ".", height, data, layout_of(height, x_axis, top, **more))


def _panel_title(names: Sequence[str]) -> str:
    """The curve's name for a single one; several are named in the legend, where they have room."""
    return chart_text(_joined(names)) if len(names) == 1 else ""


def _joined(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names[:2]) + (", …" if len(names) > 2 else "")


def finite(curve: Curve) -> list[float | None]:
    """A curve's values, None where one is not finite."""
    return [value if value is not None and math.isfinite(value) else None for value in curve.value]


def _curve_words(name: str, curve: Curve) -> str:
    known = [value for value in finite(curve) if value is not None]
    if not known:
        return f"{name} without values"
    return f"{name.replace('_', ' ')} from {known[0]:.4g} to {known[-1]:.4g}"


def _curve_trace(name: str, curve: Curve, number: int, i: int, axis: str) -> dict[str, Any]:
    shown = chart_text(name.replace("_", " "))
    return {
        "type": "scatter",
        "mode": "lines" if len(curve.step) > 40 else "lines+markers",
        "name": shown,
        "x": curve.step,
        "y": finite(curve),
        "yaxis": f"y{axis}",
        "line": {
            "color": f"--c{number}" if i == 0 else "--muted",
            "width": 1.8,
            "dash": ("solid", "dash", "dot")[i % 3],
        },
        "marker": {"size": 4},
        "hovertemplate": f"{shown} %{{y:.4g}} at step %{{x}}<extra></extra>",
    }


def time_chart(seconds: Mapping[str, float]) -> Chart | None:
    """Seconds by stage as horizontal bars; None where nothing was measured.

    Stages named ``"train vae"`` become one stacked bar a row of the suite; others a bar each.
    """
    if not seconds:
        return None
    cells: dict[str, dict[str, float]] = {}
    for name, value in seconds.items():
        stage, _, row = name.partition(" ")
        bar, part = (row, stage) if row else (name, "")
        cells.setdefault(bar, {})[part] = cells.get(bar, {}).get(part, 0.0) + value
    totals = {bar: sum(parts.values()) for bar, parts in cells.items()}
    stages = list(dict.fromkeys(part for parts in cells.values() for part in parts))
    data = [_time_bars(stage, i, cells) for i, stage in enumerate(stages)]
    height = 80 + 26 * len(cells)
    x_axis = axis_of("Seconds", range=[0, 1.15 * max(*totals.values(), 1e-9)], nticks=6)
    y_axis = axis_of("", autorange="reversed", type="category", showgrid=False, ticksuffix="  ")
    notes = [_bar_total(chart_text(bar), total) for bar, total in totals.items()]
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"}
    more = {"barmode": "stack", "bargap": 0.35, "annotations": notes, "legend": legend}
    layout = layout_of(height, x_axis, y_axis, **more) | {"showlegend": len(stages) > 1}
    words = ", ".join(f"{bar} {format_seconds(total)}" for bar, total in totals.items())
    return Chart("chart-time", "Where the time went", f"Time: {words}.", height, data, layout)


def _time_bars(stage: str, number: int, cells: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    name = chart_text(stage or "other")
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": [parts.get(stage, 0.0) for parts in cells.values()],
        "y": [chart_text(bar) for bar in cells],
        "customdata": [format_seconds(parts.get(stage, 0.0)) for parts in cells.values()],
        "marker": {"color": f"--t{number % TINTS}"},
        "hovertemplate": f"%{{y}}: {name} %{{customdata}}<extra></extra>",
    }


def _bar_total(bar: str, total: float) -> dict[str, Any]:
    return {
        "x": total,
        "y": bar,
        "text": format_seconds(total),
        "xanchor": "left",
        "xshift": 4,
        "showarrow": False,
        "font": {"size": 11, "color": "--muted"},
    }
