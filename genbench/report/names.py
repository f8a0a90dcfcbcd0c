"""What a reader of records knows of each metric: label, unit, number format, range, arrow, one line on what it says.

A metric unknown to this table is shown under its own name with underscores as spaces, so that plug-ins need no entry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

DASH = "–"

Group = Literal["quality", "likelihood", "reconstruction", "cost", "other"]
Style = Literal["significant", "share", "percent", "bits", "rate", "seconds", "count", "bytes"]

GROUPS: dict[Group, str] = {
    "quality": "Sample quality",
    "likelihood": "Likelihood",
    "reconstruction": "Reconstruction",
    "cost": "Cost",
    "other": "Other",
}

ANY = (-math.inf, math.inf)
NOT_NEGATIVE = (0.0, math.inf)
SHARE = (0.0, 1.0)
SIGNED = (-1.0, 1.0)


@dataclass(frozen=True)
class MetricName:
    """How one metric is shown; ``range``: the least and the largest value that it can have."""

    label: str
    group: Group
    style: Style = "significant"
    meaning: str = ""
    range: tuple[float, float] = ANY


METRICS: dict[str, MetricName] = {
    "fid": MetricName(
        "FID",
        "quality",
        meaning="Fréchet distance between Gaussians fitted to the features of samples and training set.",
        range=NOT_NEGATIVE,
    ),
    "fid_infinity": MetricName(
        "FID∞", "quality", meaning="FID extrapolated to infinitely many samples; without bias, so it may fall below 0."
    ),
    "fid_per_class": MetricName(
        "FID by class", "quality", meaning="FID within each class, averaged over the classes.", range=NOT_NEGATIVE
    ),
    "sfid": MetricName(
        "sFID",
        "quality",
        meaning="Fréchet distance of spatial features: where things are in the image.",
        range=NOT_NEGATIVE,
    ),
    "kid": MetricName(
        "KID",
        "quality",
        meaning="Squared maximum mean discrepancy with a cubic kernel; unbiased, so it may fall below 0.",
    ),
    "kid_full": MetricName("KID (all pairs)", "quality", meaning="KID over all pairs of images in place of subsets."),
    "inception_score": MetricName(
        "IS",
        "quality",
        meaning="Exponential of the mean divergence of p(y | x) from p(y): confident and varied classes.",
        range=(1.0, math.inf),
    ),
    "is_infinity": MetricName(
        "IS∞", "quality", meaning="Inception Score of one split, extrapolated to infinitely many samples."
    ),
    "precision": MetricName(
        "Precision", "quality", "share", "Share of the samples inside the real manifold (k nearest neighbours).", SHARE
    ),
    "recall": MetricName(
        "Recall", "quality", "share", "Share of the real images inside the manifold of the samples.", SHARE
    ),
    "f1": MetricName("F1", "quality", "share", "Harmonic mean of precision and recall.", SHARE),
    "density": MetricName(
        "Density",
        "quality",
        "share",
        "Real neighbourhoods around a sample, relative to the number expected.",
        NOT_NEGATIVE,
    ),
    "coverage": MetricName(
        "Coverage", "quality", "share", "Share of the real images with a sample in their neighbourhood.", SHARE
    ),
    "ssim_pairwise": MetricName(
        "Pairwise SSIM",
        "quality",
        "share",
        "Mean similarity among samples: high when they resemble one another.",
        SIGNED,
    ),
    "memorised_share": MetricName(
        "Memorised",
        "quality",
        "percent",
        "Share of the samples nearer to a training image than test images usually are.",
        SHARE,
    ),
    "nearest_train_distance": MetricName(
        "Distance to training set",
        "quality",
        meaning="Distance of a sample to its nearest training image.",
        range=SHARE,
    ),
    "clip_score": MetricName(
        "CLIP score", "quality", meaning="Agreement of image and caption in the features of CLIP.", range=NOT_NEGATIVE
    ),
    "clip_accuracy": MetricName(
        "CLIP accuracy",
        "quality",
        "percent",
        "Share of the samples that CLIP takes for the class that was asked for, by the names of the classes.",
        SHARE,
    ),
    "clip_r_precision": MetricName(
        "CLIP R-precision",
        "quality",
        "percent",
        "Share of the samples that fit their own caption best among others.",
        SHARE,
    ),
    "bits_per_dim": MetricName(
        "Bits/dim",
        "likelihood",
        "bits",
        "−log₂ P(x) / D of test images: fewer bits, better prediction of unseen data.",
        NOT_NEGATIVE,
    ),
    "nats_per_image": MetricName("Nats/image", "likelihood", meaning="−ln P(x) of test images.", range=NOT_NEGATIVE),
    "ssim": MetricName(
        "SSIM", "reconstruction", "share", "Structural similarity of test images to their reconstructions.", SIGNED
    ),
    "ms_ssim": MetricName("MS-SSIM", "reconstruction", "share", "SSIM over several scales.", SHARE),
    "psnr": MetricName(
        "PSNR (dB)", "reconstruction", meaning="Peak signal-to-noise ratio of reconstructions, in decibels."
    ),
    "psnr_pooled": MetricName(
        "Pooled PSNR (dB)",
        "reconstruction",
        meaning="Peak signal-to-noise ratio of the squared error averaged over all images, in decibels.",
    ),
    "lpips": MetricName(
        "LPIPS", "reconstruction", "share", "Distance of reconstructions in the features of a network.", NOT_NEGATIVE
    ),
    "images_per_second": MetricName("Images/s", "cost", "rate", "Sampling rate, from noise to uint8 pixels."),
    "latency_seconds": MetricName("Latency", "cost", "seconds", "Time to sample one image alone."),
    "evaluations_per_image": MetricName("Evaluations", "cost", "rate", "Network evaluations per sampled image."),
    "parameters": MetricName("Parameters", "cost", "count", "Number of learned parameters."),
    "training_seconds": MetricName("Training", "cost", "seconds", "Time spent in training."),
    "training_images_per_second": MetricName(
        "Training images/s", "cost", "rate", "Training images per second, validation included."
    ),
    "peak_memory_bytes": MetricName("Peak memory", "cost", "bytes", "Largest memory of the process."),
}

_POSITIONAL = 1e9
"""From here on numbers are shown with an exponent."""
LIKELIHOODS = frozenset(name for name, shown in METRICS.items() if shown.group == "likelihood")
ORDER = {name: position for position, name in enumerate(METRICS)}


def metric_name(name: str) -> MetricName:
    """The entry of ``name``, or one made from the name itself."""
    return METRICS.get(name) or MetricName(name.replace("_", " ").capitalize(), "other")


def display(name: str, extractor: str | None = None) -> str:
    """``"FID (digits-cnn)"``: the label, with the extractor that the number depends on."""
    label = metric_name(name).label
    return f"{label} ({extractor})" if extractor else label


def arrow(higher_is_better: bool | None) -> str:
    """``"↑"`` where higher is better, ``"↓"`` where lower is, nothing where neither is."""
    return "" if higher_is_better is None else "↑" if higher_is_better else "↓"


def direction(higher_is_better: bool | None) -> str:
    """The arrow in words."""
    if higher_is_better is None:
        return "no direction is better"
    return "higher is better" if higher_is_better else "lower is better"


def mark(name: str, kind: str) -> str:
    """``"≤"`` and ``"≥"`` before bounds; ``"~"`` before likelihoods that are estimates; nothing before the rest.

    Every other metric is a plain estimate with an interval, so a mark would tell nothing.
    """
    if kind == "upper_bound":
        return "≤"
    if kind == "lower_bound":
        return "≥"
    return "~" if kind == "estimate" and name in LIKELIHOODS else ""


def format_value(name: str, value: float) -> str:
    """``value`` as shown to people, with its unit where the unit depends on the size."""
    style = metric_name(name).style
    if abs(value) >= _POSITIONAL and style not in ("count", "bytes"):
        return significant(value)
    if style in ("share", "bits"):
        return _signed(f"{value:.3f}")
    if style == "percent":
        return _signed(f"{100 * value:.1f} %")
    if style == "seconds":
        return format_seconds(value)
    if style == "count":
        return _scaled(value, 1000, ("", " k", " M", " G", " T"))
    if style == "bytes":
        return _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))
    return significant(value)


def format_measured(name: str, value: float, ci95: tuple[float, float] | None) -> tuple[str, str]:
    """``value`` and its interval as text (``"12.9"``, ``"[11.4, 14.4]"``), rounded to two digits of the half width.

    Without an interval, or where the format is fixed by the metric, both are as `format_value` shows them.
    """
    if ci95 is None:
        return format_value(name, value), ""
    half = ci95[1] / 2 - ci95[0] / 2
    is_fixed = metric_name(name).style not in ("significant", "rate")
    if is_fixed or half <= 0 or max(map(abs, (value, *ci95))) >= _POSITIONAL:
        low, high = (format_value(name, bound) for bound in ci95)
        return format_value(name, value), f"[{low}, {high}]"
    shown, low, high = _rounded_by(half, value, *ci95)
    return shown, f"[{low}, {high}]"


def _rounded_by(half: float, value: float, *bounds: float) -> list[str]:
    """Value and bounds as text, to two digits of the half width, and no more than five of the value."""
    decimals = 1 - math.floor(math.log10(half))
    if value:
        decimals = min(decimals, 4 - math.floor(math.log10(abs(value))))
    rounded = (round(number, decimals) for number in (value, *bounds))
    return [_signed(f"{number:,.{max(0, decimals)}f}") for number in rounded]


def difference_text(name: str, value: float, ci95: tuple[float, float] | None) -> tuple[str, str]:
    """A difference of two values of a metric and its interval as text, with a sign: ``"+1.2"``, ``"[0.8, 1.6]"``."""
    shown, interval = format_measured(name, value, ci95)
    return _with_plus(value, shown), interval


def change_text(share: float, ci95: tuple[float, float] | None) -> tuple[str, str]:
    """A change as a share, and its interval, in per cent: ``"+4.6 %"``, ``"[1.2 %, 8.1 %]"``."""
    value, *bounds = (100 * number for number in (share, *(ci95 or ())))
    if not bounds or bounds[0] == bounds[1] or max(map(abs, (value, *bounds))) >= _POSITIONAL:
        shown, *ends = (significant(number) for number in (value, *bounds))
    else:
        shown, *ends = _rounded_by(bounds[1] / 2 - bounds[0] / 2, value, *bounds)
    interval = f"[{', '.join(f'{end} %' for end in ends)}]" if ends else ""
    return f"{_with_plus(value, shown)} %", interval


def _with_plus(value: float, shown: str) -> str:
    return f"+{shown}" if value > 0 and any(digit in shown for digit in "123456789") else shown


def format_seconds(value: float) -> str:
    """Seconds with a fitting unit: ``"3.20 ms"``, ``"12.3 s"``, ``"4 min 05 s"``."""
    if abs(value) >= _POSITIONAL:
        return f"{significant(value)} s"
    if abs(value) < 1e-3:
        return f"{significant(value * 1e6)} µs"
    if abs(value) < 1:
        return f"{significant(value * 1e3)} ms"
    if value < 120:
        return f"{significant(value)} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s"


def significant(value: float, digits: int = 3) -> str:
    """``value`` rounded to significant digits, in positional notation from 1e-4 to 1e9."""
    text = f"{value:.{digits - 1}e}"
    rounded = float(text)
    if not math.isfinite(rounded):
        return _signed(text)
    if rounded == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(rounded)))
    if magnitude < -4 or abs(rounded) >= _POSITIONAL:
        return _signed(f"{rounded:.{digits - 1}e}")
    return _signed(f"{rounded:,.{max(0, digits - 1 - magnitude)}f}")


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= base and power < len(units) - 1:
        value /= base
        power += 1
    return f"{value:.0f}{units[0]}" if power == 0 else f"{significant(value)}{units[power]}"


def _signed(text: str) -> str:
    if not text.startswith("-"):
        return text
    return f"−{text[1:]}" if any(digit in text for digit in "123456789") else text[1:]
