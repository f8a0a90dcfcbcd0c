"""A small fake run: ten rows over scikit-learn's digits, with a failure, bounds, gaps and a hostile name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from genbench.files import write_json, write_npz
from genbench.record import Curve, DatasetInfo, MetricResult, Record, Timing, TimingWindow, Training

HOSTILE = "<script>alert(1)</script>"
DATASET = DatasetInfo(
    name="digits", fingerprint="0123456789abcdef" * 4, levels=17, shape=(1, 8, 8), train=1300, validation=200, test=297
)
DIRECTIONS = {
    "fid": False,
    "kid": False,
    "inception_score": True,
    "precision": True,
    "recall": True,
    "ssim_pairwise": None,
    "memorised_share": None,
    "bits_per_dim": False,
    "ssim": True,
    "images_per_second": True,
    "parameters": None,
    "training_seconds": False,
    "peak_memory_bytes": False,
}
HALF_WIDTHS = {
    "fid": 0.12,
    "kid": 0.2,
    "inception_score": 0.02,
    "precision": 0.05,
    "recall": 0.05,
    "bits_per_dim": 0.01,
}
WITH_EXTRACTOR = {"fid", "kid", "inception_score", "precision", "recall"}


def metric(name: str, value: float, half: float | None = None, **more: Any) -> MetricResult:
    """A metric with a symmetric interval of ``half`` (none by default) and digits' own identity."""
    fields: dict[str, Any] = {
        "name": name,
        "value": value,
        "ci95": None if half is None else (value - half, value + half),
        "n": 297,
        "higher_is_better": DIRECTIONS.get(name),
        "extractor": "digits-cnn" if name in WITH_EXTRACTOR else None,
        "estimator": "plug-in",
        "comparable": {"version": 1, "dataset": DATASET.fingerprint, "n": 297},
        "provenance": {"interval": "influence function"},
    }
    return MetricResult(**(fields | more))


def absent(name: str, reason: str, status: str = "not_applicable") -> MetricResult:
    """A metric without a value."""
    return MetricResult(name=name, value=None, status=status, reason=reason, higher_is_better=DIRECTIONS[name])


def record(
    model: str, metrics: list[MetricResult], *, family: str = "latent", control: bool = False, **more: Any
) -> Record:
    """An ``ok`` record of ``model``."""
    fields: dict[str, Any] = {
        "genbench_version": "0.1.0",
        "suite": "digits",
        "dataset": DATASET,
        "model": model,
        "family": family,
        "control": control,
        "config": {"model": {"width": 64}, "train": {"steps": 2000}},
        "seed": 0,
        "status": "ok",
        "metrics": metrics,
        "environment": {"python": "3.12.1", "cpu": "Example CPU", "device": "cpu", "threads": 1},
        "keys": {"samples": "ab" * 32},
        "created": "2026-11-21T03:00:00+00:00",
    }
    return Record(**(fields | more))


def quality(
    fid: float, kid: float, inception: float, precision: float, recall: float, memorised: float
) -> list[MetricResult]:
    values = {"fid": fid, "kid": kid, "inception_score": inception, "precision": precision, "recall": recall}
    found = [metric(name, value, HALF_WIDTHS[name] * max(abs(value), 0.05)) for name, value in values.items()]
    found.append(metric("ssim_pairwise", 0.11 + 0.1 * (1 - recall), 0.01))
    share = metric(
        "memorised_share",
        memorised,
        0.02,
        provenance={"extra": {"expected": 0.01}, "notes": ["threshold <held> fixed"]},
    )
    return [*found, share]


def costs(rate: float, parameters: float, seconds: float) -> list[MetricResult]:
    return [
        metric("images_per_second", rate, 0.05 * rate),
        metric("parameters", parameters),
        metric("training_seconds", seconds),
        metric("peak_memory_bytes", 310 * 2**20),
    ]


def training(start: float, end: float, seconds: float) -> Training:
    steps = list(range(0, 2001, 50))
    noise = np.random.default_rng(0).normal(size=len(steps))
    loss = [end + (start - end) * float(np.exp(-s / 300)) + 0.02 * float(e) for s, e in zip(steps, noise)]
    validation = Curve(step=steps[::4], value=[v + 0.05 + s / 4e4 for s, v in zip(steps[::4], loss[::4])])
    curves = {"loss": Curve(step=steps, value=[None, *loss[1:]]), "validation": validation}
    return Training(steps=2000, budget_steps=2500, best_step=1200, stopped_early=True, seconds=seconds, curves=curves)


def timing(rate: float) -> Timing:
    windows = [TimingWindow(images=192, seconds=192 / rate) for _ in range(3)]
    return Timing(
        batch_size=64,
        windows=windows,
        latency_seconds=[2 / rate] * 3,
        evaluations_per_image=1,
        precision="fp32",
        device="cpu",
        threads=1,
    )


def models() -> dict[str, Record]:
    bound = {"kind": "upper_bound", "estimator": "elbo"}
    likelihood = {
        "vae": [metric("bits_per_dim", 2.116, 0.012, kind="upper_bound", estimator="iwae-500")],
        "pixelcnn": [metric("bits_per_dim", 2.076, 0.011, kind="exact", estimator="exact")],
        "ddpm": [metric("bits_per_dim", 2.652, 0.02, **bound)],
    }
    likelihood["vae"].append(metric("bits_per_dim", 2.141, 0.012, **bound))
    no_code = absent("ssim", "the model does not reconstruct images")
    return {
        "hostile-s0": record(
            HOSTILE,
            [
                *quality(63.1, 0.9, 6.2, 0.71, 0.44, 0.01),
                absent("bits_per_dim", "no likelihood <b>here</b>"),
                metric("ssim", 0.91, 0.01),
                *costs(210_000, 1024, 0.2),
            ],
            family="autoencoder",
            timing=timing(210_000),
        ),
        "vae-s0": record(
            "vae",
            [
                *quality(24.0, 0.31, 7.9, 0.83, 0.71, 0.01),
                *likelihood["vae"],
                metric("ssim", 0.88, 0.01),
                *costs(41_000, 230_000, 21),
            ],
            training=training(40, 33, 21),
            timing=timing(41_000),
        ),
        "pixelcnn-s0": record(
            "pixelcnn",
            [*quality(14.1, 0.16, 8.4, 0.86, 0.79, 0.013), *likelihood["pixelcnn"], no_code, *costs(310, 95_000, 38)],
            family="autoregressive",
            training=training(3.2, 2.05, 38),
            timing=timing(310),
        ),
        "dcgan-s0": record(
            "dcgan",
            [
                *quality(38.0, 0.5, 7.7, 0.9, 0.31, 0.02),
                absent("bits_per_dim", "a GAN has no likelihood"),
                absent("ssim", "the feature <network> broke", "failed"),
                *costs(52_000, 410_000, 30),
            ],
            family="gan",
            training=training(1.4, 0.69, 30),
            timing=timing(52_000),
        ),
        "ebm-s0": record(
            "ebm", [], family="energy", status="failed", reason="TrainingError: loss is nan at step 312\nlower the rate"
        ),
        "ddpm-s0": record(
            "ddpm",
            [*quality(12.9, 0.14, 8.5, 0.87, 0.81, 0.012), *likelihood["ddpm"], no_code, *costs(84, 390_000, 61)],
            family="diffusion",
            training=training(1.0, 0.21, 61),
            timing=timing(84),
        ),
    }


def controls() -> dict[str, Record]:
    table = {
        "test_split": quality(11.8, 0.1, 8.9, 0.91, 0.9, 0.01),
        "memoriser": quality(1.9, 0.01, 9.1, 0.99, 0.95, 1.0),
        "gaussian": quality(146.0, 3.1, 4.1, 0.33, 0.52, 0.0),
        "mode_dropper": quality(210.0, 5.2, 4.9, 0.9, 0.87, 0.01),
        "noise": quality(764.0, 19.0, 1.3, 0.0, 0.0, 0.0),
    }
    return {f"{name}-s0": record(name, found, family="control", control=True) for name, found in table.items()}


def write_run(folder: Path) -> Path:
    """Write the run into ``folder``; returns it."""
    digits = (load_digits().images * 255 / 16).round().astype(np.uint8)[..., None]  # (1797, 8, 8, 1)
    rng = np.random.default_rng(0)
    rows = models() | controls()
    for stem, row in rows.items():
        write_json(folder / "records" / f"{stem}.json", row.model_dump(mode="json"))
        if row.status == "failed":
            continue
        blur = {"noise-s0": 1.0, "gaussian-s0": 0.5, "test_split-s0": 0.0, "memoriser-s0": 0.0}.get(stem, 0.12)
        noise = rng.integers(0, 256, (297, 8, 8, 1))
        images = ((1 - blur) * digits[rng.permutation(1300)[:297]] + blur * noise).astype(np.uint8)
        write_npz(folder / "samples" / f"{stem}.npz", arr_0=images)
        write_npz(folder / "gallery" / f"{stem}.npz", **_gallery(stem, images, digits))
    manifest = {
        "suite": {"name": "digits", "models": [stem[:-3] for stem in models()]},
        "rows": list(rows),
        "command": "genbench run --suite digits",
        "stage_seconds": {"make (wall)": 96.0, "score (wall)": 31.5}
        | {
            "train vae": 21.0,
            "sample vae": 0.4,
            "train ddpm": 61.0,
            "sample ddpm": 12.5,
            "score ddpm": 4.0,
            "report": 1.5,
        },
        "genbench_version": "0.1.0",
        "started": "2026-11-21T02:58:00+00:00",
        "finished": "2026-11-21T03:01:00+00:00",
    }
    (folder / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _gallery(stem: str, samples: np.ndarray, digits: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {"nearest_samples": samples[:16], "nearest": digits[:16]}
    if stem in ("vae-s0", "hostile-s0"):
        real = digits[1500:1564]
        steps = np.linspace(0, 1, 9)[None, :, None, None, None]
        start, end = digits[:4, None].astype(float), digits[4:8, None].astype(float)
        arrays |= {"real": real, "reconstructions": (real * 0.85).astype(np.uint8)}
        arrays["interpolations"] = ((1 - steps) * start + steps * end).round().astype(np.uint8)
    return arrays
