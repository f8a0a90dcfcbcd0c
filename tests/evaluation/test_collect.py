"""What is kept of each side while images stream by, how parts of it merge, and what a reference is known by."""

import json

import numpy as np
import pytest
from eval_inputs import PixelExtractor, pictures, save, save_classes, spatial_statistics

import genbench
from genbench.errors import DataError
from genbench.evaluation import collect
from genbench.evaluation.collect import Collection, Collector, Wanted, batches
from genbench.evaluation.pairing import MAX_WAITING_BATCHES, PairCollector, PairScores
from genbench.evaluation.plan import make_plan
from genbench.evaluation.reference import align_labels, prepare_reference
from genbench.metrics.base import MetricInputs
from genbench.metrics.sides import Side
from genbench.metrics.spatial_frechet import SpatialFrechetDistance
from genbench.sources import open_source
from genbench.sources.base import SourceImage


@pytest.fixture
def sides(rng):
    return pictures(rng, 60), pictures(rng, 90, shift=10)


def run(samples, reference, metrics, **more):
    return genbench.evaluate(samples, reference, metrics, **{"extractor": PixelExtractor(), **more})


def distance(x, y):
    """The squared Fréchet distance of two feature arrays, by eigenvalues."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    overlap = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0)).sum()
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * overlap)


class NoSpatial(PixelExtractor):
    """An extractor without spatial features."""

    def extract(self, images):
        found = super().extract(images)
        return type(found)(found.features, found.logits)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("metrics", [("sfid",), ("fid", "sfid"), ("sfid", "precision")])
def test_sfid_alone_or_not_read_or_found(sides, metrics, cache):
    samples, reference = sides
    expected = distance(PixelExtractor().extract(samples).spatial, PixelExtractor().extract(reference).spatial)
    extractor = PixelExtractor()
    for _ in range(2):
        found = run(samples, reference, metrics, cache=cache, extractor=extractor)["sfid"]
        assert found.status == "ok" and found.ci95 is not None
        assert found.value == pytest.approx(expected, rel=1e-6)
    assert extractor.images_seen == 2 * 60 + (90 if cache else 180), "the second reference comes from the cache"


def test_an_extractor_without_spatial_features_ends_no_evaluation(sides):
    for _ in range(2):
        found = run(*sides, ("fid", "sfid"), extractor=NoSpatial())
        assert found["fid"].status == "ok" and found["sfid"].status == "not_applicable"
        assert "spatial" in found["sfid"].reason


def test_spatial_rows_alone_make_a_side(rng):
    """More rows than features, or fewer: the distance is that of the rows."""
    images = pictures(rng, 30)
    other = Side.of("reference images", PixelExtractor().extract(pictures(rng, 40)))
    for count in (3, 30):
        found = Collection(Wanted(spatial=True), count=count)
        features = PixelExtractor().extract(images[:count])
        found.add(np.arange(count), {"spatial": features.spatial})
        value = SpatialFrechetDistance().compute(MetricInputs(found.side("samples"), other))[0].value
        direct = SpatialFrechetDistance().compute(MetricInputs(Side.of("samples", features), other))[0].value
        assert value == pytest.approx(direct, rel=1e-6)


@pytest.mark.parametrize("images", [5, 90])
def test_statistics_of_the_reference_are_those_of_adm(sides, tmp_path, images):
    """With at most as many reference images as features (6), and with more of them."""
    samples, reference = sides
    statistics = spatial_statistics(PixelExtractor().extract(np.concatenate([reference, samples])))
    np.savez(tmp_path / "batch.npz", arr_0=reference[:images].transpose(0, 2, 3, 1), **statistics)
    np.savez(tmp_path / "statistics.npz", **statistics)
    metrics = ("fid", "sfid")
    adm = run(samples, str(tmp_path / "batch.npz"), metrics, protocol="adm")
    alone = run(samples, str(tmp_path / "statistics.npz"), metrics, protocol="adm")
    tf1 = run(samples, str(tmp_path / "batch.npz"), metrics)
    for name in metrics:
        assert adm[name].value == pytest.approx(alone[name].value, rel=1e-12)
        assert adm[name].value != pytest.approx(tf1[name].value, rel=1e-2)


def test_adm_without_spatial_statistics_takes_them_of_the_images(sides, tmp_path, monkeypatch):
    samples, reference = sides
    statistics = spatial_statistics(PixelExtractor().extract(reference))
    statistics = {name: statistics[name] for name in ("mu", "sigma")}
    np.savez(tmp_path / "batch.npz", arr_0=reference.transpose(0, 2, 3, 1), **statistics)
    whole = run(samples, reference, ("fid", "sfid"))["sfid"].value
    monkeypatch.setattr(collect, "SPILL_ROWS", 16)
    found = run(samples, str(tmp_path / "batch.npz"), ("fid", "sfid"), protocol="adm")["sfid"]
    assert found.value == pytest.approx(whole, rel=1e-9)


def test_classes_that_no_metric_looks_at(sides, tmp_path):
    samples, reference = sides
    ours = save_classes(tmp_path / "samples", samples, ("batch0", "batch1"))
    theirs = save_classes(tmp_path / "reference", reference, ("ant", "bee", "cat"))
    found = run(ours, theirs, ("fid",))
    assert found["fid"].value == pytest.approx(run(samples, reference, ("fid",))["fid"].value, rel=1e-6)
    assert any("'batch0'" in warning.message and "ant, bee, cat" in warning.message for warning in found.warnings)
    with pytest.raises(DataError, match="'batch0'"):
        run(ours, theirs, ("fid_per_class",))


def test_numbers_count_the_classes_of_the_reference(sides, tmp_path):
    samples, reference = sides
    theirs = save_classes(tmp_path / "reference", reference, ("ant", "bee", "cat"))
    names = save_classes(tmp_path / "samples", samples, ("ant", "bee", "cat"))
    expected = run(names, theirs, ("fid_per_class",))["fid_per_class"]
    found = run(samples, theirs, ("fid_per_class",), labels=np.arange(60) % 3)["fid_per_class"]
    assert found.value == pytest.approx(expected.value, rel=1e-6)
    with pytest.raises(DataError, match="'3'"):
        run(samples, theirs, ("fid_per_class",), labels=np.arange(60) % 4)


@pytest.mark.parametrize(
    "ours, labels, theirs, expected",
    [
        (("b", "a"), [0, 1, 0], ("a", "b"), [1, 0, 1]),
        (("0", "1", "2"), [2, 0, 2], ("x", "y", "z"), [2, 0, 2]),
        (("0", "1", "2"), [2, 0, 2], ("2", "1", "0"), [0, 2, 0]),
        (("unused", "a"), [1, 1, 1], ("a", "b"), [0, 0, 0]),
        (("0", "1", "2"), [2, 0, 2], ("x", "y"), None),
        (("0", "1"), [1, 0, 1], ("4", "7"), None),
        (("a", "c"), [1, 0, 1], ("a", "b"), None),
    ],
)
def test_labels_are_aligned_by_name_then_by_number(ours, labels, theirs, expected):
    def sides():
        samples = Side("samples", 3, labels=np.array(labels), class_names=ours)
        return samples, Side("reference images", 3, class_names=theirs)

    samples, reference = sides()
    note = align_labels(samples, reference, False)
    assert reference.class_names == theirs
    if expected is None:
        assert note is not None and samples.class_names == ours and samples.labels.tolist() == labels
        with pytest.raises(DataError, match="does not have"):
            align_labels(*sides(), True)
    else:
        assert note is None and samples.class_names == theirs and samples.labels.tolist() == expected


def prepare(source, extractor, metrics=("fid",), use_cache=True):
    return prepare_reference(
        open_source(source), make_plan(metrics), extractor, 64, "fail", use_cache=use_cache, verify=False, progress=None
    )


def test_class_counts_are_kept_with_the_statistics(sides, tmp_path):
    theirs = save_classes(tmp_path / "reference", sides[1][:50], ("ant", "bee", "cat"))
    extractor = PixelExtractor()
    for _ in range(2):
        assert prepare(theirs, extractor).class_counts == {"ant": 17, "bee": 17, "cat": 16}
    assert extractor.images_seen == 50
    np.save(tmp_path / "images.npy", sides[1])
    for classes, known in ((3, {"0": 30, "1": 30, "2": 30}), (9, {})):
        labelled = open_source(str(tmp_path / "images.npy"), labels=np.arange(90) % classes)
        assert prepare(labelled, extractor).class_counts == known, "counts of other classes are not those of these"
    assert extractor.images_seen == 140
    assert prepare(save(tmp_path / "plain", sides[1]), extractor).class_counts == {}


def write_with_passport(path, reference, identity, fingerprint="f" * 64):
    passport = {"fingerprint": fingerprint, "extractor": identity}
    np.savez(path, genbench=np.array(json.dumps(passport)), **spatial_statistics(PixelExtractor().extract(reference)))
    return str(path)


def test_statistics_of_another_network_are_refused(sides, tmp_path):
    extractor = PixelExtractor()
    identity = extractor.identity
    same = prepare(write_with_passport(tmp_path / "same.npz", sides[1], identity), extractor)
    assert same.info.fingerprint == "f" * 64 and same.made_with == identity
    for field, value in (("name", "vgg"), ("weights_sha256", "2" * 64), ("resize", "bicubic")):
        path = write_with_passport(tmp_path / f"{field}.npz", sides[1], {**identity, field: value})
        with pytest.raises(DataError, match=rf'{field} "{value}".*{field} ("{identity.get(field)}"|not given)'):
            prepare(path, extractor)
    np.savez(tmp_path / "plain.npz", **spatial_statistics(extractor.extract(sides[1])))
    plain = prepare(str(tmp_path / "plain.npz"), extractor)
    assert plain.made_with is None and plain.info.fingerprint != "f" * 64


class LargestBatch:
    """Stands for a network or metric; notes what was waiting when it was called."""

    name, notes, score_key, input_size = "largest", (), "largest", None

    def __init__(self):
        self.calls = []
        self.identity = {"name": self.name}

    def extract(self, images):
        self.calls.append(len(images))
        return PixelExtractor().extract(images)

    def score_pairs(self, x, y):
        self.calls.append(len(x))
        return np.zeros(len(x))


def of_many_sizes(rng, count=300):
    return [SourceImage(rng.integers(0, 255, (3, 8, 8 + i), dtype=np.uint8), str(i)) for i in range(count)]


def test_images_of_unlike_sizes_do_not_wait_without_limit(rng):
    network, waiting, images = LargestBatch(), [], of_many_sizes(rng)
    collector = Collector(Wanted(features=True), network, batch_size=8)
    for i, image in enumerate(images):
        collector.add(image)
        waiting.append(i + 1 - sum(network.calls))
    assert max(waiting) == MAX_WAITING_BATCHES * 8
    found = collector.finish()
    assert sum(network.calls) == 300
    direct = np.concatenate([PixelExtractor().extract(image.pixels[None]).features for image in images])
    assert np.array_equal(found.ordered("features"), direct)


def test_the_fullest_queue_runs_first(rng):
    network, images = LargestBatch(), of_many_sizes(rng, 33 - 5)
    collector = Collector(Wanted(features=True), network, batch_size=8)
    for image in [images[3]] * 5 + images:
        collector.add(image)
    assert network.calls == [6]


def test_pairs_of_unlike_sizes_do_not_wait_without_limit(rng):
    metric, waiting = LargestBatch(), []
    found = PairScores()
    pairs = PairCollector([metric], found, batch_size=8)
    for i, image in enumerate(of_many_sizes(rng)):
        pairs.add(image, image)
        waiting.append(i + 1 - sum(metric.calls))
    assert max(waiting) == MAX_WAITING_BATCHES * 8
    pairs.finish()
    assert sum(len(block) for block in found.scores["largest"]) == 300


def part_of(images, wanted, index=None, identity="", batch_size=64):
    collector = Collector(wanted, PixelExtractor(), batch_size=batch_size, identity=identity)
    for i, image in enumerate(batches(images)):
        collector.add(image, None if index is None else int(index[i]))
    return collector.finish()


def test_merging_leaves_the_other_part_alone(sides, monkeypatch):
    monkeypatch.setattr(collect, "SPILL_ROWS", 16)
    wanted = Wanted(moments=True, spatial=True)
    first, second, third = Collection(wanted), part_of(sides[0], wanted), part_of(sides[1], wanted)
    before = second.side("samples").moments()
    first.merge(second)
    first.merge(third)
    after = second.side("samples")
    assert after.moments().count == before.count == after.spatial_moments().count == 60
    assert np.array_equal(after.moments().mean, before.mean)
    assert first.side("samples").moments().count == 150


@pytest.mark.parametrize("cuts", [(20, 40), (3, 50), (40, 57)])
def test_three_parts_that_became_moments_equal_the_whole(sides, monkeypatch, cuts):
    samples, reference = sides
    whole = run(samples, reference, ("fid", "sfid"), cache=False)
    monkeypatch.setattr(collect, "SPILL_ROWS", 16)

    def evaluator():
        return genbench.Evaluator(reference, ("fid", "sfid"), extractor=PixelExtractor(), batch_size=8, cache=False)

    parts = [evaluator() for _ in range(3)]
    for part, images in zip(parts, np.split(samples, cuts), strict=True):
        part.update(images)
    merged = evaluator()
    for part in parts:
        merged.merge(part.collected())
    found = merged.compute()
    for name in ("fid", "sfid"):
        assert found[name].n == 60
        assert found[name].value == pytest.approx(whole[name].value, rel=1e-9)
    second = parts[1].compute()
    assert second["fid"].n == cuts[1] - cuts[0], "a part that was merged still stands for itself"


def test_parts_of_other_evaluations_are_refused(sides):
    wanted = Wanted(features=True)
    first = part_of(sides[0], wanted, identity="a")
    for other in (part_of(sides[1], wanted, identity="b"), part_of(sides[1], Wanted(moments=True), identity="a")):
        with pytest.raises(DataError, match="different metrics, options, protocols or weights"):
            first.merge(other)
    first.merge(part_of(sides[1], wanted, identity="a"))
    assert first.count == 150 and len(first.ordered("features")) == 150


@pytest.mark.parametrize("more", [{"protocol": "adm"}, {"extractor": PixelExtractor(width=5)}, {"metrics": ("kid",)}])
def test_evaluators_of_other_plans_do_not_merge(sides, more):
    arguments = {"metrics": ("precision",), "extractor": PixelExtractor()}
    first, second = genbench.Evaluator(sides[1], **arguments), genbench.Evaluator(sides[1], **{**arguments, **more})
    for evaluator in (first, second):
        evaluator.update(sides[0])
    with pytest.raises(DataError, match="different metrics, options"):
        first.merge(second)


def test_parts_with_and_without_positions_do_not_mix(sides):
    wanted, places = Wanted(features=True), np.arange(60)
    for first, second in ((places, None), (None, places + 60)):
        part = part_of(sides[0], wanted, first)
        with pytest.raises(DataError, match="index"):
            part.merge(part_of(sides[0], wanted, second))
        assert part.count == 60 and len(part.ordered("features")) == 60, "nothing was added"
        collector = Collector(wanted, PixelExtractor())
        image = next(batches(sides[0]))
        collector.add(image, None if first is None else 0)
        with pytest.raises(DataError, match="index"):
            collector.add(image, 1 if first is None else None)
    empty = Collection(wanted)
    empty.merge(part_of(sides[0], wanted, places))
    empty.merge(part_of(sides[0], wanted, places + 60))
    assert len(empty.ordered("features")) == 120


def test_a_position_counts_once(sides, monkeypatch):
    wanted = Wanted(moments=True)
    first, second = part_of(sides[0][:9], wanted, np.arange(9)), part_of(sides[0][9:], wanted, np.arange(51) + 8)
    with pytest.raises(DataError, match="position 8"):
        first.merge(second)
    assert first.count == 9
    twice = part_of(sides[0], wanted, np.minimum(np.arange(60), 58))
    for look in (lambda: twice.ordered("features"), lambda: twice.side("samples")):
        with pytest.raises(DataError, match="position 58"):
            look()
    monkeypatch.setattr(collect, "SPILL_ROWS", 16)
    with pytest.raises(DataError, match="position 58"):
        part_of(sides[0], wanted, np.minimum(np.arange(60), 58)).side("samples")
