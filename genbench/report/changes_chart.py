"""Training curves of two runs of one model over each other."""

from __future__ import annotations

from typing import Any

from genbench.record import Curve, Record
from genbench.report.charts import Chart, axis_of, chart_text, finite, layout_of


def overlay_chart(before: Record, after: Record, label: str, index: int) -> Chart | None:
    """The validation curve of both (else the first curve that both have) over the steps; None without one."""
    curves = [{} if record.training is None else record.training.curves for record in (before, after)]
    shared = [name for name in curves[0] if name in curves[1] and len(curves[0][name].step) > 1]
    if not shared:
        return None
    name = next((one for one in shared if one.startswith("val")), shared[0])
    shown = name.replace("_", " ")
    traces = [_trace("before", curves[0][name], "--muted", "dash"), _trace("after", curves[1][name], "--c0", "solid")]
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    layout = layout_of(260, axis_of("Step", nticks=6), axis_of(chart_text(shown), nticks=5), legend=legend)
    ends = [next((v for v in reversed(finite(curve[name])) if v is not None), None) for curve in curves]
    words = " and ".join("no value" if end is None else f"{end:.4g}" for end in ends)
    alt = f"{shown} of {label} over the steps, ending at {words}, before and after."
    return Chart(f"chart-change-{index}", f"{label}: {shown}", alt, 260, traces, layout | {"showlegend": True})


def _trace(name: str, curve: Curve, colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": curve.step,
        "y": finite(curve),
        "line": {"color": colour, "width": 1.8, "dash": dash},
        "hovertemplate": f"{name} %{{y:.4g}} at step %{{x}}<extra></extra>",
    }
