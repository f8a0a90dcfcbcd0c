"""Warnings: what makes a number mean less than it seems, found in what was read and in what was computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genbench.evaluation.collect import NEARLY_CONSTANT_RANGE, Collection
from genbench.evaluation.networks import Networks
from genbench.evaluation.plan import Plan
from genbench.evaluation.reference import WHO, Prepared
from genbench.evaluation.result import SideInfo, Warn
from genbench.metrics.base import Need
from genbench.record import MetricResult
from genbench.sources import Pairing

UPSCALING_LIMIT = 4.0
_LOSSY = frozenset({"JPEG", "WEBP", "JPEG2000", "MPO"})
_COMPARES_SETS: frozenset[Need] = frozenset({"moments", "features", "spatial"})
_OF_SETS = _COMPARES_SETS | {"logits"}


@dataclass(frozen=True)
class Read:
    """The samples as they were read. note: what became of their labels, where there is something to say.

    unknown_statistics: the reference is a file that does not say which network it is of.
    """

    found: Collection
    info: SideInfo
    class_names: tuple[str, ...] = ()
    pairing: Pairing | None = None
    note: str | None = None
    unknown_statistics: bool = False


def all_warnings(
    plan: Plan, networks: Networks, samples: Read, reference: Prepared | None, metrics: Sequence[MetricResult]
) -> list[Warn]:
    """Every warning, those of the input first; none is said twice."""
    found = [*_of_side("samples", samples.info), *_of_collection("samples", samples.found)]
    if reference is not None:
        found += _of_side(WHO, reference.info)
        if reference.collection is not None:
            found += _of_collection(WHO, reference.collection)
            found += _of_overlap(samples.found, reference.collection)
        found += _of_sizes(samples.info, reference.info)
        if plan.needs & _COMPARES_SETS:
            found += _of_compression(samples.info, reference.info)
        found += _of_classes(samples, reference)
        if samples.unknown_statistics:
            found.append(Warn(code="unknown-statistics", message=_unknown_statistics(reference.info.name, plan)))
    if samples.note is not None:
        found.append(Warn(code="labels", message=samples.note))
    if samples.pairing is not None and samples.pairing.warn:
        found.append(Warn(code="paired-by-order", message=f"Pairs are matched by order: {samples.pairing.reason}."))
    found += _of_input_size(plan, networks, samples.info)
    found += _of_count(plan, samples.info)
    for network in (networks.extractor, networks.image_text):
        if network is not None:
            found += [Warn(code="weights", message=note) for note in network.notes]
    for metric in metrics:
        notes = [str(note) for note in metric.provenance.get("notes", ())]
        found += [Warn(code=f"metric:{metric.name}", message=note) for note in notes]
    return _once(found)


def _unknown_statistics(name: str, plan: Plan) -> str:
    return (
        f"{name} does not say which network, weights and preprocessing made its statistics; they are taken to be those "
        f"of {plan.extractor} under protocol '{plan.protocol.name}'."
    )


def _once(warnings: Sequence[Warn]) -> list[Warn]:
    """One warning a message; metrics that say the same are named together."""
    by_message: dict[str, Warn] = {}
    for warning in warnings:
        first = by_message.get(warning.message)
        if first is None:
            by_message[warning.message] = warning
        elif warning.code not in first.code.split("+"):
            code = f"{first.code}+{warning.code}"
            by_message[warning.message] = Warn(code=code, message=warning.message)
    return list(by_message.values())


def _of_side(who: str, info: SideInfo) -> Iterator[Warn]:
    if info.skipped:
        first = info.skipped[0]
        yield Warn(
            code="skipped",
            message=f"{len(info.skipped)} unreadable {who} were left out (first: {first}).",
        )
    if len(info.sizes) > 1:
        sizes = ", ".join(f"{size} ({times})" for size, times in list(info.sizes.items())[:4])
        more = ", ..." if len(info.sizes) > 4 else ""
        yield Warn(
            code="mixed-sizes",
            message=f"The {who} have {len(info.sizes)} sizes: {sizes}{more}. Each image goes through the network's "
            "resizing (and cropping, where that is part of it) by itself.",
        )
    if info.count is None:
        yield Warn(code="unknown-count", message=f"{info.name} does not say how many images its statistics are of.")


def _of_collection(who: str, found: Collection) -> Iterator[Warn]:
    copies = sum(times - 1 for times in found.hashes.values())
    if copies:
        yield Warn(
            code="duplicates",
            message=f"{copies} of {found.count} {who} are copies of others; nearest-neighbour radii shrink, and "
            "intervals count copies as if they were independent.",
        )
    if found.constant:
        yield Warn(
            code="nearly-constant",
            message=f"{found.constant} of {found.count} {who} are nearly constant (all values within "
            f"{NEARLY_CONSTANT_RANGE} of 255).",
        )
    if found.seen.transparent:
        yield Warn(
            code="transparency",
            message=f"{found.seen.transparent} {who} have transparent pixels, which were composited over white.",
        )
    if found.seen.sixteen_bit:
        yield Warn(
            code="sixteen-bit",
            message=f"{found.seen.sixteen_bit} {who} have 16 bits a value, which were divided by 257 and rounded.",
        )


def _of_overlap(samples: Collection, reference: Collection) -> Iterator[Warn]:
    shared = sum(times for key, times in samples.hashes.items() if key in reference.hashes)
    if shared:
        yield Warn(
            code="overlap",
            message=f"{shared} of {samples.count} samples are copies of reference images, pixel by pixel.",
        )


def _of_compression(samples: SideInfo, reference: SideInfo) -> Iterator[Warn]:
    ours, theirs = _lossy_share(samples), _lossy_share(reference)
    if ours is None or theirs is None or abs(ours - theirs) <= 0.5:
        return
    kinds = [max(info.formats, key=lambda f, of=info.formats: of[f]) for info in (samples, reference)]  # type: ignore[misc]
    yield Warn(
        code="compression",
        message=f"The samples are mostly {kinds[0]} and the reference {kinds[1]}: lossy compression alone moves FID. "
        "Save both losslessly.",
    )


def _of_sizes(samples: SideInfo, reference: SideInfo) -> Iterator[Warn]:
    if len(samples.sizes) == 1 and len(reference.sizes) == 1 and set(samples.sizes) != set(reference.sizes):
        ours, theirs = next(iter(samples.sizes)), next(iter(reference.sizes))
        yield Warn(
            code="unlike-sizes",
            message=f"The samples are {ours} and the reference {theirs}: each is resized by itself to the network's "
            "input, and the difference in sharpness is measured too.",
        )


def _lossy_share(info: SideInfo) -> float | None:
    """Share of images in a lossy file format, arrays counting as lossless; None where nothing is known."""
    total = sum(info.formats.values())
    return None if total == 0 else sum(times for name, times in info.formats.items() if name in _LOSSY) / total


def _of_classes(samples: Read, reference: Prepared) -> Iterator[Warn]:
    labels, counts = samples.found.known_labels(), reference.class_counts
    if labels is None or not counts:
        return
    names = samples.class_names or tuple(str(k) for k in range(int(labels.max()) + 1))
    theirs = list(counts)
    numbers = all(name.isdigit() for name in names)
    if numbers and not set(names) & set(theirs) and int(labels.max()) < len(theirs):
        names = tuple(theirs)
    present = {names[label] for label in np.unique(labels) if label < len(names)}
    if not present & set(theirs):
        return
    missing = [name for name in theirs if counts[name] and name not in present]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if missing[5:] else "")
        yield Warn(
            code="missing-class",
            message=f"{len(missing)} of the reference's classes have no sample: {shown}.",
        )


def _of_input_size(plan: Plan, networks: Networks, info: SideInfo) -> Iterator[Warn]:
    size = None if networks.extractor is None else networks.extractor.input_size
    if size is None or not info.sizes:
        return
    smallest = min(min(map(int, text.split("x"))) for text in info.sizes)
    factor = size / smallest
    if factor > UPSCALING_LIMIT:
        yield Warn(
            code="upscaling",
            message=f"Images of {smallest} pixels are enlarged {factor:.1f} times to the {size} of {plan.extractor}: "
            "the network sees blur, and numbers compare only with others made so.",
        )


def _of_count(plan: Plan, info: SideInfo) -> Iterator[Warn]:
    if not plan.needs & _OF_SETS or info.count is None or info.count >= plan.protocol.num_samples:
        return
    yield Warn(
        code="few-samples",
        message=f"{info.count} samples; numbers under protocol '{plan.protocol.name}' are usually of "
        f"{plan.protocol.num_samples}. FID is biased upward at small counts and compares only at equal ones.",
    )
