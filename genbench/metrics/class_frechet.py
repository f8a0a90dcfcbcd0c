"""FID within each class, averaged over classes: it sees classes that are mixed up where FID sees one cloud.

The Gaussians of a class's samples and of its reference images are compared, class by class. With few images a class the
distance is strongly biased upward (`frechet`), so that values rank together only at equal numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from genbench.files import hash_array
from genbench.metrics.base import Estimate, Metric, MetricInputs, NotApplicable, Side
from genbench.metrics.frechet import FittedSide, Measured
from genbench.metrics.statistics import positive_interval

_LISTED = 10


def class_rows(side: Side, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Indices of a side's images by the name of their class, or by their label where there are no names.

    Raises:
        NotApplicable: there are no labels.
    """
    labels = side.known_labels()
    own = side.class_names or names
    return {
        own[label] if 0 <= label < len(own) else str(label): np.flatnonzero(labels == label)
        for label in map(int, np.unique(labels))
    }


@dataclass(frozen=True)
class _Classes:
    """Distances by class, and the classes that have none, with the reason."""

    found: dict[str, Measured]
    missing: list[str]
    too_few: list[str]
    unknown: list[str]

    def notes(self) -> tuple[str, ...]:
        """Warnings that name classes."""
        low_rank = [name for name, found in self.found.items() if found.samples.fit.low_rank]
        said = (
            ("no samples of {} of the reference: {}; the value is that of the others", self.missing),
            ("fewer than 2 images of {} on one side: {}; the value is that of the others", self.too_few),
            ("samples of {} that the reference lacks are left out: {}", self.unknown),
            ("fewer samples than features in {}, where the distance is strongly biased upward: {}", low_rank),
        )
        return tuple(text.format(_counted(names), _listed(names)) for text, names in said if names)


def _counted(names: list[str]) -> str:
    return f"{len(names)} {'class' if len(names) == 1 else 'classes'}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


class ClassFrechetDistance(Metric):
    """FID of the samples of each class to the reference images of that class, averaged over classes."""

    name = "fid_per_class"
    higher_is_better = False
    needs = frozenset({"features", "labels"})
    summary = "FID within each class, averaged over classes"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; ``extra["classes"]`` has value, n and the reference's n of each.

        A class without samples, or with one image on either side, is named in a note and left out of the mean; the
        number of classes in the mean is among the conditions, so that such a value ranks with none of all classes, and
        so is the hash of the reference's labels: a value is of one way to divide it.

        Raises:
            NotApplicable: labels or features of a side are not known, or no class has two images on both sides.
        """
        classes = _by_class(inputs.samples, inputs.reference)
        if not classes.found:
            raise NotApplicable("no class has at least 2 samples and 2 reference images")
        found = classes.found
        value = float(np.mean([one.value for one in found.values()]))
        variances = [one.variance for one in found.values() if one.variance is not None]
        error = None
        if len(variances) == len(found):
            error = math.sqrt(sum(variance.standard_error**2 for variance in variances)) / len(found)
        notes = classes.notes()
        if error is None:
            notes += ("no interval: it takes at least 3 samples of each class",)
        figures = {
            name: {"value": one.value, "n": one.samples.fit.n, "reference_n": one.reference.fit.n}
            for name, one in found.items()
        }
        return [
            Estimate(
                value=value,
                n=sum(one.samples.fit.n or 0 for one in found.values()),
                ci95=None if error is None else positive_interval(value, error),
                interval=None if error is None else "jackknife within classes, which count as independent",
                estimator="mean-over-classes",
                standard_error=error,
                notes=notes,
                extra={"classes": figures, "missing": classes.missing, "too_few": classes.too_few},
                conditions={
                    "classes": len(found),
                    "labels_fingerprint": hash_array(inputs.reference.known_labels().astype(np.int64)),
                },
            )
        ]


def _by_class(samples: Side, reference: Side) -> _Classes:
    names = reference.class_names or samples.class_names
    mine, theirs = class_rows(samples, names), class_rows(reference, names)
    x, y = samples.features().features, reference.features().features
    found, missing, too_few = dict[str, Measured](), list[str](), list[str]()
    for name, rows in theirs.items():
        if name not in mine:
            missing.append(name)
        elif min(len(rows), len(mine[name])) < 2:
            too_few.append(name)
        else:
            found[name] = Measured.of(
                FittedSide.of_features(samples.who, x[mine[name]]), FittedSide.of_features(reference.who, y[rows])
            )
    return _Classes(found, missing, too_few, [name for name in mine if name not in theirs])
