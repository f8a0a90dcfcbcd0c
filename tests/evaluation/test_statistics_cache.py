import json
import logging
import multiprocessing
import os

import numpy as np
import pytest

from genbench.errors import DataError, UsageError
from genbench.evaluation.statistics import StatisticsCache, check_entry
from genbench.metrics.moments import Moments

IDENTITY = {"name": "fake", "weights_sha256": "0" * 64, "preprocessing": "tf1"}
DATA = "d" * 64


@pytest.fixture
def cache(tmp_path):
    return StatisticsCache(tmp_path / "statistics")


def features(seed=0, n=40, d=5):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def keep(cache, x, fingerprint=DATA, identity=IDENTITY, with_features=True, **more):
    given = x if with_features else None
    return cache.store(fingerprint, identity, moments=Moments.of(x), features=given, source={"name": "x"}, **more)


def test_what_was_stored_is_found(cache):
    x = features()
    spatial, logits = Moments.of(features(1, d=3)), features(2, d=7)
    images = {2**64 - 1: 3, 0: 1}
    keep(cache, x, logits=logits, spatial_moments=spatial, images=images, observed={"constant": 2})
    found = cache.find(DATA, IDENTITY)
    expected = Moments.of(x)
    assert found.count == 40
    assert np.array_equal(found.features, x)
    assert isinstance(found.features, np.memmap)
    assert np.array_equal(found.logits, logits)
    assert np.array_equal(found.moments.mean, expected.mean)
    assert np.array_equal(found.moments.scatter, expected.scatter)
    assert np.array_equal(found.spatial_moments.scatter, spatial.scatter)
    assert found.images == images
    assert found.observed == {"constant": 2}
    assert found.manifest["source"] == {"name": "x"}
    assert found.manifest["extractor"] == IDENTITY
    assert check_entry(found, full=True) is None


@pytest.mark.parametrize(
    ("fingerprint", "identity"),
    [
        ("e" * 64, IDENTITY),
        (DATA, {**IDENTITY, "weights_sha256": "1" * 64}),
        (DATA, {**IDENTITY, "preprocessing": "clean"}),
        (DATA, {**IDENTITY, "precision": "bfloat16"}),
    ],
)
def test_other_data_weights_or_preprocessing_find_nothing(cache, fingerprint, identity):
    keep(cache, features())
    assert cache.find(fingerprint, identity) is None


def test_another_version_of_the_statistics_finds_nothing(cache, monkeypatch):
    keep(cache, features())
    monkeypatch.setattr("genbench.evaluation.statistics.STATISTICS_VERSION", 2)
    assert cache.find(DATA, IDENTITY) is None


def test_order_of_the_identity_does_not_matter(cache):
    keep(cache, features())
    assert cache.find(DATA, dict(reversed(IDENTITY.items()))) is not None


def test_features_are_added_to_and_stay(cache):
    x = features()
    keep(cache, x, with_features=False)
    assert cache.find(DATA, IDENTITY).features is None
    keep(cache, x)
    keep(cache, x, with_features=False, spatial_moments=Moments.of(features(1)))
    found = cache.find(DATA, IDENTITY)
    assert np.array_equal(found.features, x)
    assert found.spatial_moments is not None
    assert check_entry(found, full=True) is None


def test_damaged_features_are_not_carried_over(cache):
    x = features()
    entry = keep(cache, x)
    flip(entry.folder / "features.npy")
    keep(cache, x, with_features=False)
    assert cache.find(DATA, IDENTITY).features is None


def test_open_features_outlive_a_replacement(cache):
    x = features()
    held = keep(cache, x).features
    keep(cache, x, spatial_moments=Moments.of(x))
    assert np.array_equal(held, x)


def flip(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def _truncate(folder):
    path = folder / "features.npy"
    path.write_bytes(path.read_bytes()[:-4])


def _other_count(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "count": 41}))


def _other_identity(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": "e" * 64}))


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _other_count,
        _other_identity,
        lambda folder: (folder / "features.npy").unlink(),
        lambda folder: (folder / "moments.npz").unlink(),
        lambda folder: flip(folder / "moments.npz", 600),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text('{"files": '),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"),
        lambda folder: flip(folder / "features.npy", 0),
        lambda folder: (folder / "features.npy").open("ab").write(b"more"),
    ],
)
def test_a_damaged_entry_is_passed_over_and_mended(cache, damage, caplog):
    x = features()
    damage(keep(cache, x).folder)
    with caplog.at_level(logging.WARNING):
        assert cache.find(DATA, IDENTITY) is None
    assert "damaged statistics" in caplog.text
    keep(cache, x)
    assert np.array_equal(cache.find(DATA, IDENTITY).features, x)


def test_a_changed_byte_of_the_features_is_found_by_its_hash(cache):
    entry = keep(cache, features())
    flip(entry.folder / "features.npy")
    found = cache.get(entry.key)
    assert "features.npy" in check_entry(found)


def test_moments_of_other_features_are_found_in_full_only(cache):
    entry = cache.store(DATA, IDENTITY, moments=Moments.of(features(3)), features=features(), source={})
    assert check_entry(entry) is None
    assert "mean" in check_entry(entry, full=True)


def test_counts_that_differ_are_refused(cache):
    with pytest.raises(DataError, match="40 images, the features of 39"):
        cache.store(DATA, IDENTITY, moments=Moments.of(features()), features=features()[1:], source={})
    with pytest.raises(DataError, match="without a number"):
        cache.store(DATA, IDENTITY, moments=Moments.from_covariance(np.zeros(2), np.eye(2), None), source={})
    assert cache.keys() == []


def test_keys_may_be_shortened(cache):
    entry = keep(cache, features())
    assert cache.get(entry.key[:8]).key == entry.key
    with pytest.raises(UsageError, match="stats show"):
        cache.get("zz")


def test_removed_entries_are_gone_and_leave_nothing(cache):
    entry = keep(cache, features())
    cache.remove(entry.key)
    assert cache.keys() == []
    assert cache.find(DATA, IDENTITY) is None
    assert not [path for path in cache.folder.iterdir() if path.is_dir()]


def test_sweep_deletes_old_leftovers_only(cache):
    keep(cache, features())
    old, young = cache.folder / ".abc-old", cache.folder / ".abc-young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (1, 1))
    cache.sweep()
    assert not old.exists()
    assert young.exists()
    assert len(cache.keys()) == 1


def test_a_write_that_fails_leaves_the_old_entry(cache, monkeypatch):
    x = features()
    keep(cache, x)

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("genbench.evaluation.statistics.write_json", full_disk)
    with pytest.raises(OSError, match="No space"):
        keep(cache, x, spatial_moments=Moments.of(x))
    assert np.array_equal(cache.find(DATA, IDENTITY).features, x)
    assert len([path for path in cache.folder.iterdir() if path.is_dir()]) == 1


def test_a_read_only_cache_is_read(cache):
    entry = keep(cache, features())
    (cache.folder / f".{entry.key}.lock").unlink()
    cache.folder.chmod(0o555)
    try:
        assert cache.find(DATA, IDENTITY) is not None
    finally:
        cache.folder.chmod(0o755)


def _work(folder, seed, rounds, results):
    cache = StatisticsCache(folder)
    x = features(0)
    rng = np.random.default_rng(seed)
    wrong, hits = 0, 0
    for _ in range(rounds):
        if rng.random() < 0.5:
            keep(cache, x, with_features=bool(rng.random() < 0.5))
        found = cache.find(DATA, IDENTITY)
        if found is not None:
            hits += 1
            kept = found.features
            wrong += not np.array_equal(found.moments.mean, Moments.of(x).mean)
            wrong += kept is not None and not np.array_equal(kept, x)
    results.put((wrong, hits))


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_work, args=(tmp_path / "s", seed, 60, results)) for seed in (1, 2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert [wrong for wrong, _ in found] == [0, 0]
    assert all(hits > 40 for _, hits in found)
    cache = StatisticsCache(tmp_path / "s")
    assert check_entry(cache.find(DATA, IDENTITY), full=True) is None
    assert len([path for path in cache.folder.iterdir() if path.is_dir()]) == 1
