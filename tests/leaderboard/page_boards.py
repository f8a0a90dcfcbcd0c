"""Synthetic boards for the tests of the page."""

from __future__ import annotations

import base64
import io
import random
import statistics

import numpy as np
from PIL import Image

HOSTILE = "<script>alert(1)</script>"
CARD = f"""# Card of {HOSTILE}

Plain *text* with `code`, [a link](https://example.org/paper), [a trap](javascript:alert(1)),
<img src=x onerror=alert(1)> and ![a picture](https://example.org/picture.png).

| seed | value |
| --- | --- |
| 0 | 1.5 |
"""


def metric(key, label, group, higher_is_better, unit="", meaning="What it says."):
    return {
        "key": key,
        "label": label,
        "unit": unit,
        "higher_is_better": higher_is_better,
        "group": group,
        "meaning": meaning,
    }


METRICS = [
    metric("fid", "FID", "quality", False),
    metric("recall", "Recall", "quality", True),
    metric("bits_per_dim", "Bits/dim", "likelihood", False, "bits/dim"),
    metric("images_per_second", "Images/s", "cost", True, "images/s"),
    metric("parameters", "Parameters", "cost", False),
]


def cell(value, group, rank=None, low=None, high=None, kind="estimate", text=None, **more):
    return {
        "value": value,
        "low": low,
        "high": high,
        "kind": kind,
        "estimator": more.pop("estimator", "plug-in"),
        "text": (f"{value:.2f}" if text is None else text) if value is not None else "–",
        "group": group,
        "rank": rank,
        "seeds": (seeds := more.pop("seeds", [value])),
        "spread": statistics.stdev(each for each in seeds if each is not None) if len(seeds) > 1 else None,
        "status": "ok",
        "reason": "",
        "confirmed": True,
        **more,
    }


def missing(reason="no likelihood", status="not_applicable"):
    return cell(None, None) | {"kind": None, "seeds": [], "status": status, "reason": reason}


def row(name, cells, **more):
    return {
        "id": more.pop("id", name),
        "label": name,
        "model": name,
        "variant": None,
        "family": "gan",
        "tier": "self-run",
        "control": False,
        "devices": ["cpu"],
        "extractors": ["digits-cnn"],
        "seeds": [0],
        "parameters": 1000,
        "training_seconds": 12.5,
        "source": "",
        "confirmed": True,
        "card": "",
        "grid": "",
        "record": f"records/{more.get('id', 'row')}-s0.json",
        "cells": cells,
        **more,
    }


def grid():
    pixels = np.arange(32 * 32, dtype=np.uint32).reshape(32, 32) % 256
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def cost(rate, count):
    return {
        "images_per_second": cell(rate, "cpu1", text=f"{rate:,.0f}"),
        "parameters": cell(count, "any", kind="exact", text=f"{count:,}"),
    }


def small_board():
    """Two groups of FID, all tiers, each kind of likelihood, missing cells, hostile names."""
    bits = "bits_per_dim"
    rows = [
        row(
            "ddpm",
            {
                "fid": cell(3.1, "g1", [1, 2], 2.9, 3.3, seeds=[3.0, 3.1, 3.2]),
                "recall": cell(0.7, "r1", [1, 1], text="70.0 %", low=0.69, high=0.71),
                bits: cell(2.2, "b1", [2, 3], 2.1, 2.3, kind="upper_bound", estimator="elbo"),
                **cost(10.0, 40000),
            },
            family="diffusion",
            seeds=[0, 1, 2],
            devices=["cpu", "tpu"],
            extractors=["digits-cnn", "digits-clip"],
            tier="reproduced",
            grid=grid(),
            card=CARD,
        ),
        row(
            "dcgan",
            {
                "fid": cell(3.2, "g1", [1, 2], 3.0, 3.4),
                "recall": cell(0.5, "r1", [2, 2], text="50.0 %"),
                bits: missing(),
                **cost(9000.0, 90000),
            },
        ),
        row(
            "pixelcnn",
            {
                "fid": cell(4.5, "g1", [3, 3], 4.2, 4.8),
                bits: cell(2.05, "b1", [1, 1], 2.0, 2.1, kind="exact", estimator="exact"),
                **cost(2.0, 7000),
            },
            family="autoregressive",
        ),
        row(
            HOSTILE,
            {
                "fid": cell(9.9, "g1", [4, 4], text=HOSTILE),
                bits: cell(2.3, "b1", [2, 3], kind="estimate", estimator=HOSTILE),
                **cost(100.0, 500),
            },
            id="hostile",
            model=HOSTILE,
            variant=HOSTILE,
            family="<b>family</b>",
            devices=['"><img src=x onerror=alert(1)>'],
            source="javascript:alert(1)",
            record="javascript:alert(1)",
            card=CARD,
        ),
        row(
            "=HYPERLINK(1)",
            {
                "fid": cell(2.0, "g2", [1, 1], 1.9, 2.1, interval="[1.90; 2.10]", reason="a note on it"),
                "images_per_second": cell(5e4, "h200", text="50,000"),
            },
            id="formula",
            extractors=["inception-v3"],
            devices=["h200"],
        ),
        row(
            "glow",
            {"fid": cell(5.0, "g2", [2, 2], 4.9, 5.1)},
            family="flow",
            extractors=["inception-v3"],
            devices=["h200"],
        ),
        row("noise", {"fid": missing("it broke", "failed"), "recall": cell(0.0, "r1")}, family="control", control=True),
        row(
            "StyleGAN2",
            {"fid": cell(2.32, "paper", text="2.32", seeds=[], confirmed=False)},
            tier="reported",
            confirmed=False,
            devices=[],
            extractors=[],
            seeds=[],
            parameters=None,
            training_seconds=None,
            source="https://example.org/stylegan2",
            record="",
        ),
    ]
    return board(
        rows,
        [
            front("fid", "images_per_second", ["g1", "cpu1"], ["ddpm", "dcgan", "hostile"]),
            front("fid", "images_per_second", ["g2", "h200"], ["formula"]),
            front("bits_per_dim", "parameters", ["b1", "any"], ["pixelcnn", "hostile"]),
        ],
    )


def front(quality, cost, groups, rows):
    return {"quality": quality, "cost": cost, "groups": groups, "rows": rows}


def board(rows, pareto=()):
    return {
        "suite": "digits",
        "title": f"Digits {HOSTILE}",
        "description": "Images of 8 × 8 digits & their models.",
        "generated": "2026-01-02",
        "genbench_version": "0.1.0",
        "rules": "A row states its seed.\n</script><script>alert(2)</script>\u2028&amp;",
        "metrics": METRICS,
        "rows": rows,
        "pareto": list(pareto),
    }


def large_board(count=1000, more_metrics=15):
    """``count`` rows with twenty metrics, two groups, ranks as intervals."""
    generator = random.Random(0)
    extra = [metric(f"m{i}", f"Metric {i}", "other", i % 2 == 0) for i in range(more_metrics)]
    rows = []
    for index in range(count):
        cells = {}
        for each in [*METRICS, *extra]:
            place = generator.randrange(count // 2)
            value = 1.0 + (place if not each["higher_is_better"] else count // 2 - place)
            rank = [max(1, place - 3), min(count // 2, place + 3)]
            span, seeds = (value * 0.95, value * 1.05), [value - 0.5, value + 0.5]
            cells[each["key"]] = cell(value, f"g{index % 2}", rank, *span, seeds=seeds)
        family = f"family{index % 7}"
        rows.append(row(f"model {index}", cells, id=f"model-{index}", family=family, seeds=[0, 1], card=CARD))
    best = front("fid", "images_per_second", ["g0", "g0"], [f"model-{i}" for i in (0, 2, 4)])
    return board(rows, [best]) | {"metrics": [*METRICS, *extra]}
