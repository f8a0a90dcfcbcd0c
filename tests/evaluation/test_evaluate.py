"""`genbench.evaluate` and the streaming evaluator: one number whatever the input, the batch or the number of parts."""

import json
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from eval_inputs import PixelExtractor, WordModel, collect_share, pictures, save

import genbench
from genbench.errors import DataError, UsageError
from genbench.evaluation import collect
from genbench.evaluation.pairing import PairCollector, PairScores
from genbench.evaluation.result import read_result, write_result
from genbench.metrics import Estimate, PairMetric
from genbench.protocols import PROTOCOLS
from genbench.sources.base import SourceImage
from genbench.sources.folder import FolderSource

SMALL = {"kid": {"subsets": 5, "subset_size": 20}, "inception_score": {"splits": 2}}
METRICS = ("fid", "kid", "is", "precision", "recall", "density", "coverage")


def values(result):
    return {metric.name: metric.value for metric in result.metrics}


@pytest.fixture
def sides(rng):
    return pictures(rng, 60), pictures(rng, 90, shift=10)


def run(samples, reference, metrics=METRICS, **more):
    more.setdefault("extractor", PixelExtractor())
    options = {
        name: values for name, values in SMALL.items() if name in [m.replace("is", "inception_score") for m in metrics]
    }
    return genbench.evaluate(samples, reference, metrics, options=options, **more)


def test_every_route_gives_the_same_numbers(sides, tmp_path):
    samples, reference = sides
    in_memory = run(samples, reference)
    assert all(metric.status == "ok" and metric.ci95 is not None for metric in in_memory.metrics)
    folders = run(save(tmp_path / "a", samples), save(tmp_path / "b", reference))
    np.savez(tmp_path / "a.npz", arr_0=samples.transpose(0, 2, 3, 1))
    np.save(tmp_path / "b.npy", reference)
    arrays = run(str(tmp_path / "a.npz"), str(tmp_path / "b.npy"))
    assert values(folders) == values(in_memory) == values(arrays)


def test_batches_and_parts_change_nothing(sides):
    samples, reference = sides
    whole = values(run(samples, reference))
    for batch_size in (1, 7, 1000):
        assert values(run(samples, reference, batch_size=batch_size)) == pytest.approx(whole, rel=1e-6)
    first, second = (
        genbench.Evaluator(reference, METRICS, extractor=PixelExtractor(), options=named(SMALL)) for _ in range(2)
    )
    order = np.random.default_rng(0).permutation(60)
    second.update(samples[order[:25]], index=order[:25])
    first.update(samples[order[25:]], index=order[25:])
    first.merge(second.collected())
    assert values(first.compute()) == pytest.approx(whole, rel=1e-6)


def named(options):
    return {name: dict(found) for name, found in options.items()}


def test_evaluator_in_a_training_loop(sides):
    samples, reference = sides
    extractor = PixelExtractor()
    evaluator = genbench.Evaluator(reference, ["fid"], extractor=extractor, cache=False)
    evaluator.update(samples[:30])
    early = evaluator.compute()["fid"]
    evaluator.update(samples[30:])
    assert evaluator.compute()["fid"].n == 60 and early.n == 30
    evaluator.reset()
    evaluator.update(samples[:30])
    assert evaluator.compute()["fid"].value == early.value
    assert extractor.images_seen == 30 + 90 + 30 + 30, "the reference is read once"


def test_float_tensors(sides):
    import torch

    samples, reference = sides
    as_float = torch.from_numpy(samples).float() / 255
    assert values(run(as_float, reference)) == values(run(samples, reference))


def test_one_pass_serves_all_metrics(sides):
    samples, reference = sides
    extractor = PixelExtractor()
    run(samples, reference, extractor=extractor, cache=False)
    assert extractor.images_seen == len(samples) + len(reference)


def test_order_free_metrics(sides, rng):
    samples, reference = sides
    names = ("fid", "precision", "recall", "density", "coverage")
    a = run(samples, reference, names)
    b = run(samples[rng.permutation(60)], reference[rng.permutation(90)], names)
    assert values(a) == pytest.approx(values(b), rel=1e-9)


def test_swapping_sides(sides):
    samples, reference = sides
    names = ("fid", "precision", "recall")
    there, back = values(run(samples, reference, names)), values(run(reference, samples, names))
    assert there["fid"] == pytest.approx(back["fid"], rel=1e-9)
    assert (there["precision"], there["recall"]) == (back["recall"], back["precision"])
    assert there["precision"] != there["recall"]


def test_memory_stops_growing_when_moments_are_enough(sides, monkeypatch):
    samples, reference = sides
    whole = run(samples, reference, ["fid"])
    monkeypatch.setattr(collect, "SPILL_ROWS", 16)
    evaluator = genbench.Evaluator(reference, ["fid"], extractor=PixelExtractor(), batch_size=8, cache=False)
    evaluator.update(samples)
    assert sum(len(block) for block in evaluator.collected().rows.get("features", [])) < 16
    streamed = evaluator.compute()["fid"]
    assert streamed.value == pytest.approx(whole["fid"].value, rel=1e-9)
    assert streamed.ci95 == pytest.approx(whole["fid"].ci95, rel=0.2)


def test_statistics_in_place_of_the_reference(sides, tmp_path):
    samples, reference = sides
    features = PixelExtractor().extract(reference).features.astype(np.float64)
    np.savez(tmp_path / "stats.npz", mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    found = run(samples, str(tmp_path / "stats.npz"), ("fid", "kid", "is"))
    assert found["fid"].value == pytest.approx(run(samples, reference)["fid"].value, rel=1e-9)
    assert found["kid"].status == "not_applicable" and "only mean and covariance" in found["kid"].reason
    assert found["inception_score"].status == "ok"
    assert found.reference.count is None and any(w.code == "unknown-count" for w in found.warnings)


def test_reference_comes_from_the_cache_and_never_goes_stale(sides, tmp_path):
    samples, reference = sides
    folder = save(tmp_path / "ref", reference)
    extractor = PixelExtractor()
    first = run(samples, folder, extractor=extractor)
    seen = extractor.images_seen
    again = run(samples, folder, extractor=extractor)
    assert extractor.images_seen == seen + len(samples) and values(again) == values(first)
    moved = folder.rename(tmp_path / "renamed")
    assert values(run(samples, moved, extractor=extractor)) == values(first)
    assert extractor.images_seen == seen + 2 * len(samples)
    save(moved, reference[:1] // 2)
    changed = run(samples, moved, extractor=extractor)
    assert changed["fid"].value != first["fid"].value
    other = PixelExtractor(width=5)
    assert run(samples, moved, extractor=other).extractor["width"] == 5 and other.images_seen == 150


def test_pairs_match_files_by_name(rng, tmp_path):
    images = pictures(rng, 6)
    noisy = np.clip(images.astype(int) + rng.integers(-9, 9, images.shape), 0, 255).astype(np.uint8)
    a, b = save(tmp_path / "a", noisy), save(tmp_path / "b", images)
    (a / "00002.png").rename(a / "zz.png")
    (b / "00002.png").rename(b / "zz.png")
    found = genbench.evaluate(a, b, ["ssim", "psnr"], pairs=True)
    direct = genbench.evaluate(noisy, images, ["ssim", "psnr"], pairs=True)
    assert values(found) == pytest.approx(values(direct))
    assert found["psnr"].value > 30 and found["psnr"].provenance["paired_by"] == "reference image"
    (b / "zz.png").unlink()
    with pytest.raises(DataError, match=r"6.*5"):
        genbench.evaluate(a, b, ["ssim"], pairs=True)
    with pytest.raises(DataError, match="one size"):
        genbench.evaluate(images[:, :, :15], images, ["ssim"], pairs=True)


def test_prompts(rng, tmp_path):
    images = pictures(rng, 12)
    prompts = [f"brightness {image.mean() / 255:.3f}" for image in images]
    good = genbench.evaluate(images, None, ["clip_score"], prompts=prompts, image_text=WordModel())
    assert good["clip_score"].value == pytest.approx(2.5, abs=1e-3) and good["clip_score"].extractor == "words"
    (tmp_path / "prompts.txt").write_text("\n".join(prompts[:-1]))
    with pytest.raises(DataError, match=r"11.*12"):
        genbench.evaluate(images, None, ["clip_score"], prompts=tmp_path / "prompts.txt", image_text=WordModel())
    with pytest.raises(UsageError, match="--prompts"):
        genbench.evaluate(images, None, ["clip_score"], image_text=WordModel())


def test_classes(rng):
    images, labels = pictures(rng, 40), np.arange(40) % 4
    reference = pictures(rng, 60)
    evaluator = genbench.Evaluator(
        [(image, i % 4) for i, image in enumerate(reference)], ["fid_per_class"], extractor=PixelExtractor()
    )
    evaluator.update(images, labels=labels)
    found = evaluator.compute()
    assert found["fid_per_class"].status == "ok" and not [w for w in found.warnings if w.code == "missing-class"]
    evaluator.reset()
    evaluator.update(images[labels > 0], labels=labels[labels > 0])
    assert [w for w in evaluator.compute().warnings if w.code == "missing-class"]


def test_result_file_survives_a_round_trip(sides, tmp_path):
    result = run(*sides)
    write_result(tmp_path / "result.json", result)
    read = read_result(tmp_path / "result.json")
    assert values(read) == values(result) and set(read.scores) == set(result.scores) != set()
    text = json.loads((tmp_path / "result.json").read_text())
    assert text["metrics"][0]["comparable"]["protocol"] == "tf1"
    assert text["metrics"][0]["comparable"]["extractor"]["name"] == "pixels"
    (tmp_path / "result.scores.npz").write_bytes(b"changed")
    with pytest.raises(DataError, match=r"result\.scores\.npz"):
        read_result(tmp_path / "result.json")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"metrics": ["fdi"]}, "Did you mean 'fid'"),
        ({"protocol": "tf2"}, "Did you mean 'tf1'"),
        ({"metrics": ["bits_per_dim"]}, "one of suites"),
        ({"metrics": ["memorised_share"]}, "one of suites"),
        ({"metrics": ["ssim"]}, "--pairs"),
        ({"metrics": ["fid", "fid"]}, "twice"),
        ({"metrics": []}, "No metric"),
        ({"options": {"fid": {"splits": 3}}}, "Unknown option"),
        ({"options": {"lpips": {}}}, "not among"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_bad_usage_is_refused_before_anything_is_read(sides, arguments, message):
    extractor = PixelExtractor()
    with pytest.raises(UsageError, match=message):
        genbench.evaluate(*sides, **{"metrics": ["fid"], "extractor": extractor, **arguments})
    assert extractor.images_seen == 0


def test_bad_images(sides, rng):
    samples, reference = sides
    for bad, message in (
        (samples[:0], "no images|No images"),
        (samples[:1], "at least 2"),
        (samples / 255.0 * 3 - 1, r"\[0, 1\]"),
        (np.full(samples.shape, np.nan), "NaN"),
        (samples.astype(np.int64) * 2, r"255"),
        (rng.integers(0, 255, (5, 3, 16, 3)).astype(np.uint8), "layout"),
    ):
        with pytest.raises(DataError, match=message):
            run(bad, reference, ["fid"])


def test_corrupted_files_fail_by_name_or_are_counted(sides, tmp_path):
    samples, reference = sides
    folder = save(tmp_path / "a", samples)
    (folder / "00003.png").write_bytes((folder / "00003.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"00003\.png"):
        run(folder, reference, ["fid"])
    found = run(folder, reference, ["fid"], on_error="skip")
    assert found["fid"].n == 59 and len(found.samples.skipped) == 1 and found.warnings[0].code == "skipped"


def codes(result):
    return {warning.code for warning in result.warnings}


def test_warnings(sides, rng, tmp_path):
    samples, reference = sides
    plain = run(samples, reference, ["fid"])
    assert codes(plain) == {"few-samples"}
    assert "duplicates" in codes(run(np.concatenate([samples, samples[:2]]), reference, ["fid"]))
    assert "overlap" in codes(run(np.concatenate([samples, reference[:2]]), reference, ["fid"]))
    flat = samples.copy()
    flat[:3] = 90
    assert "nearly-constant" in codes(run(flat, reference, ["fid"]))
    lossy = run(save(tmp_path / "j", samples, "jpg"), save(tmp_path / "p", reference), ["fid"])
    assert "compression" in codes(lossy)
    mixed = save(tmp_path / "m", samples)
    save(mixed / "more", pictures(rng, 5, (3, 20, 24)))
    found = run(mixed, reference, ["fid"])
    assert "mixed-sizes" in codes(found) and found.samples.sizes == {"16x16": 60, "24x20": 5}
    assert "unlike-sizes" in codes(run(pictures(rng, 20, (3, 8, 8)), reference, ["fid"]))
    wide = run(samples, reference, ["fid"], extractor=PixelExtractor(width=100))
    assert any("low-rank" in warning.message for warning in wide.warnings)
    big = genbench.evaluate(samples, reference, ["kid"], extractor=PixelExtractor())
    assert any("1000" in warning.message and "metric:kid" in warning.code for warning in big.warnings)


def test_statistics_beside_the_images_serve_the_adm_protocol_alone(sides, rng, tmp_path):
    samples, reference = sides
    more = PixelExtractor().extract(pictures(rng, 300)).features.astype(np.float64)
    np.savez(
        tmp_path / "virtual.npz",
        arr_0=reference.transpose(0, 2, 3, 1),
        mu=more.mean(0),
        sigma=np.cov(more, rowvar=False),
    )
    np.savez(tmp_path / "stats.npz", mu=more.mean(0), sigma=np.cov(more, rowvar=False))
    batch = str(tmp_path / "virtual.npz")
    for _ in range(2):
        adm = run(samples, batch, ("fid", "precision"), protocol="adm")
        tf1 = run(samples, batch, ("fid", "precision"))
        assert adm["fid"].value == run(samples, str(tmp_path / "stats.npz"), ("fid",))["fid"].value
        assert tf1["fid"].value == pytest.approx(run(samples, reference, ("fid",))["fid"].value, rel=1e-9)
        assert adm["precision"].value == tf1["precision"].value and adm["fid"].value != tf1["fid"].value


def test_a_cache_that_cannot_be_written_ends_no_evaluation(sides, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "file"))
    assert run(*sides, ("fid",))["fid"].status == "ok"
    assert "were not kept" in caplog.text


def test_pairs_that_are_merged(rng):
    images = pictures(rng, 9)
    noisy = np.clip(images.astype(int) + rng.integers(-9, 9, images.shape), 0, 255).astype(np.uint8)
    whole = genbench.evaluate(noisy, images, ["psnr"], pairs=True)
    first, second = (genbench.Evaluator(images, ["psnr"], pairs=True) for _ in range(2))
    first.update(noisy[:4], reference=images[:4])
    second.update(noisy[4:], reference=images[4:])
    first.merge(second.collected())
    merged = first.compute()
    assert merged["psnr"].value == whole["psnr"].value
    assert np.array_equal(merged.scores["psnr.mean"], whole.scores["psnr.mean"])


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_change_nothing(sides, processes):
    """Each process collects its share; what travels between them is plain data."""
    samples, reference = sides
    whole = values(run(samples, reference))
    evaluator = genbench.Evaluator(reference, METRICS, extractor=PixelExtractor(), options=named(SMALL))
    shares = [(reference, samples[rank::3], np.arange(60)[rank::3], METRICS, named(SMALL)) for rank in range(3)]
    folder = str(Path(__file__).parent)
    with ProcessPoolExecutor(processes, get_context("spawn"), sys.path.insert, (0, folder)) as pool:
        for part in pool.map(collect_share, shares):
            evaluator.merge(part)
    assert values(evaluator.compute()) == pytest.approx(whole, rel=1e-6)


def test_a_file_that_lies_about_its_times_is_found_by_verify(sides, tmp_path, monkeypatch):
    """The memo of hashes is trusted for unchanged sizes and times, and read anew under ``verify``."""
    samples, reference = sides
    folder = save(tmp_path / "ref", reference)
    asked = []
    fingerprint = FolderSource.fingerprint
    monkeypatch.setattr(
        FolderSource, "fingerprint", lambda self, verify=False: asked.append(verify) or fingerprint(self, verify=verify)
    )
    run(samples, folder, ("fid",))
    run(samples, folder, ("fid",), verify=True)
    run(folder, samples, ("fid",), verify=True)
    assert asked == [False, True, True]


def test_merged_parts_say_what_the_whole_says(rng):
    """Labels, prompts, warnings and the description of the input survive a merge, in whatever order parts arrive."""
    samples = pictures(rng, 30)
    samples[3], samples[20], samples[25] = 90, samples[7], samples[28]
    labels = np.arange(30) % 3
    prompts = [f"brightness {image.mean() / 255:.3f}" for image in samples]
    reference = [(image, i % 3) for i, image in enumerate(pictures(rng, 40))]
    metrics, models = ["fid_per_class", "clip_score", "clip_r_precision"], {"image_text": WordModel()}

    def part(rows, index=None):
        evaluator = genbench.Evaluator(reference, metrics, extractor=PixelExtractor(), prompts=True, **models)
        texts = [prompts[i] for i in rows]
        evaluator.update(samples[rows], labels=labels[rows], prompts=texts, index=index)
        return evaluator

    whole = part(np.arange(30)).compute()
    following = part(np.arange(12))
    following.merge(part(np.arange(12, 30)).collected())
    order = rng.permutation(30)
    placed = part(order[:11], order[:11])
    placed.merge(part(order[11:], order[11:]).collected())
    for merged in (following.compute(), placed.compute()):
        assert values(merged) == pytest.approx(values(whole), rel=1e-6)
        assert merged.warnings == whole.warnings and {"duplicates", "nearly-constant"} <= codes(merged)
        assert merged.samples == whole.samples and merged.samples.sizes == {"16x16": 30}
        for name, scores in whole.scores.items():
            assert merged.scores[name] == pytest.approx(scores, rel=1e-6), name


def test_pairs_whose_names_differ_are_refused_unless_by_order(rng, tmp_path):
    images = pictures(rng, 5)
    a, b = save(tmp_path / "a", images), save(tmp_path / "b", images)
    (b / "00001.png").rename(b / "other.png")
    with pytest.raises(DataError, match=r"00001.*--pairs-by-order"):
        genbench.evaluate(a, b, ["ssim"], pairs=True)
    found = genbench.evaluate(a, b, ["ssim"], pairs=True, by_order=True)
    assert found["ssim"].value < 1 and "paired-by-order" in codes(found)


def test_pair_scores_stand_in_the_order_of_the_reference(rng, tmp_path):
    images = pictures(rng, 8)
    noisy = np.clip(images.astype(int) + rng.integers(-40, 40, images.shape), 0, 255).astype(np.uint8)
    a, b = save(tmp_path / "a", noisy), save(tmp_path / "b", images)
    straight = genbench.evaluate(a, b, ["psnr"], pairs=True)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for i in rng.permutation(8):
            archive.add(a / f"{i:05d}.png", f"{i:05d}.png")
    shuffled = genbench.evaluate(tmp_path / "a.tar", b, ["psnr"], pairs=True)
    assert np.array_equal(straight.scores["psnr.mean"], shuffled.scores["psnr.mean"])


def test_a_batch_that_failed_is_not_forgotten(sides):
    class Picky(PixelExtractor):
        def extract(self, images):
            if images.shape[2] == 9:
                raise DataError("no 9 x 9 images here")
            return super().extract(images)

    evaluator = genbench.Evaluator(sides[1], ["fid"], extractor=Picky())
    evaluator.update(sides[0])
    evaluator.update(np.zeros((4, 3, 9, 9), np.uint8))
    with pytest.raises(DataError, match="no 9 x 9"):
        evaluator.compute()
    with pytest.raises(DataError, match="earlier batch failed"):
        evaluator.compute()
    evaluator.reset()
    evaluator.update(sides[0])
    assert evaluator.compute()["fid"].n == 60


def test_names_as_on_the_command_line(sides):
    found = run(*sides, "FID, is")
    assert [metric.name for metric in found.metrics] == ["fid", "inception_score"]
    assert found["is"] is found["inception_score"]
    with pytest.raises(UsageError, match="not available"):
        run(*sides, ("fid",), device="quantum")
    with pytest.raises(UsageError, match="must not be negative"):
        run(*sides, ("fid",), seed=-1)


def test_networks_and_weights_without_use_are_refused(sides, tmp_path):
    images = sides[0]
    for more in ({"extractor": "digits-cnn"}, {"weights": tmp_path / "x.pth"}, {"image_text": "digits-clip"}):
        with pytest.raises(UsageError, match="leave"):
            genbench.evaluate(images, images, ["psnr"], pairs=True, **more)


def test_all_takes_what_the_inputs_allow(sides):
    alone = genbench.evaluate(sides[0], None, "all", extractor=PixelExtractor())
    assert {metric.name for metric in alone.metrics} == {"inception_score", "is_infinity"}


def test_the_seed_reaches_metrics_that_draw(sides):
    one, two = (run(*sides, ("fid_infinity",), seed=seed)["fid_infinity"] for seed in (1, 2))
    assert one.value != two.value and one.comparable["options"]["seed"] == 1


def test_what_two_results_must_share(sides, tmp_path):
    samples, reference = sides
    stored = {
        "array": reference,
        "folder": save(tmp_path / "r", reference),
        "nhwc": np.ascontiguousarray(reference.transpose(0, 2, 3, 1)),
        "once": iter(reference),
    }
    found = {name: run(samples, given, ("fid", "is")) for name, given in stored.items()}
    assert len({result["fid"].comparable["reference"] for result in found.values()}) == 1
    fewer = run(samples, reference[1:], ("fid",))
    assert fewer["fid"].comparable["reference"] != found["array"]["fid"].comparable["reference"]
    assert "reference" not in found["array"]["is"].comparable


def test_every_protocol_sets_its_options(sides):
    for protocol in PROTOCOLS.values():
        metrics = [name for name in ("inception_score", "precision", "coverage") if name in protocol.options]
        if not metrics:
            continue
        options = {"inception_score": {"splits": 2}} if "inception_score" in metrics else {}
        found = genbench.evaluate(*sides, metrics, protocol=protocol.name, extractor=PixelExtractor(), options=options)
        for metric in metrics:
            expected = {**protocol.options[metric], **options.get(metric, {})}
            assert expected.items() <= found[metric].comparable["options"].items(), (protocol.name, metric)


class FirstMinusSecond(PairMetric):
    name = "first_minus_second"

    def score_pairs(self, x, y):
        return x.mean((1, 2, 3)) - y.mean((1, 2, 3))

    def compute(self, inputs):
        return [Estimate(float(self.scores(inputs).mean()), 3)]


def test_samples_come_first_in_a_pair():
    metric, found = FirstMinusSecond(), PairScores()
    collector = PairCollector([metric], found)
    dark, light = np.zeros((3, 8, 8), np.uint8), np.full((3, 8, 8), 200, np.uint8)
    for _ in range(3):
        collector.add(SourceImage(light, "sample"), SourceImage(dark, "reference"))
    collector.finish()
    assert found.ordered().scores(metric.score_key, metric.score_pairs).tolist() == [200.0] * 3
