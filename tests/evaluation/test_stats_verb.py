import json
import os
import shutil
import time

import numpy as np
import pytest
from click.testing import CliRunner
from eval_inputs import PixelExtractor, pictures, save

from genbench.cli.stats_verb import command
from genbench.errors import DataError, UsageError
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.reference_statistics import export_statistics, make_statistics, read_passport
from genbench.evaluation.statistics import StatisticsCache
from genbench.features.base import Features
from genbench.metrics.moments import Moments
from genbench.sources import open_source, read_statistics


@pytest.fixture
def folder(tmp_path, rng):
    return save(tmp_path / "reference", pictures(rng, 30))


@pytest.fixture
def remember(monkeypatch):
    """Call it once files are written: their content hashes are remembered from then on."""
    monkeypatch.setattr("genbench.sources.hashing.RACY_SECONDS", 0.02)
    return lambda: time.sleep(0.05)


def make(path, extractor=None, **options):
    return make_statistics(open_source(path), extractor or PixelExtractor(), StatisticsCache(), **options)


def verb(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)


def test_statistics_are_those_of_the_features(folder, rng):
    made = make(folder, batch_size=7)
    images = np.stack([image.pixels for image in open_source(folder).images()])
    expected = Moments.of(PixelExtractor().extract(images).features)
    assert made.computed and made.stored.count == 30
    assert np.allclose(made.stored.moments.mean, expected.mean, rtol=1e-12)
    assert np.allclose(made.stored.moments.covariance(), expected.covariance(), rtol=1e-9)


def test_an_evaluation_finds_what_was_made(folder, rng, tmp_path):
    samples = pictures(rng, 20)
    alone = evaluate(samples, folder, ("fid", "kid"), extractor=PixelExtractor(), cache=False)
    make(folder, features=True)
    extractor = PixelExtractor()
    found = evaluate(samples, folder, ("fid", "kid"), extractor=extractor)
    assert extractor.images_seen == 20
    assert found["fid"].value == pytest.approx(alone["fid"].value, rel=1e-12)
    assert found["fid"].comparable == alone["fid"].comparable
    assert found.reference == alone.reference


def test_what_an_evaluation_kept_is_found(folder, rng):
    evaluate(pictures(rng, 20), folder, ("kid",), extractor=PixelExtractor())
    extractor = PixelExtractor()
    assert not make(folder, extractor, features=True).computed
    assert extractor.images_seen == 0


def test_copies_and_flat_images_are_remembered(tmp_path, rng):
    images = pictures(rng, 6)
    images[1], images[2] = images[0], 90
    stored = make(save(tmp_path / "a", images)).stored
    assert sorted(stored.images.values()) == [1, 1, 1, 1, 2]
    assert stored.observed == {"constant": 1, "transparent": 0, "sixteen_bit": 0}


def test_other_weights_compute_again(folder):
    make(folder)
    assert make(folder, PixelExtractor(width=5)).computed


def test_a_moved_folder_still_hits(folder, tmp_path, remember):
    remember()
    make(folder)
    folder.rename(tmp_path / "elsewhere")
    assert not make(tmp_path / "elsewhere").computed
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "copy")
    assert not make(tmp_path / "copy").computed


def test_another_folder_of_the_same_name_misses(folder, rng, remember):
    remember()
    first = make(folder)
    shutil.rmtree(folder)
    save(folder, pictures(rng, 30))
    again = make(folder)
    assert again.computed
    assert not np.allclose(again.stored.moments.mean, first.stored.moments.mean)


@pytest.mark.parametrize("how", ["changed", "added", "removed", "renamed"])
def test_a_changed_folder_misses(folder, rng, how, remember):
    remember()
    make(folder)
    assert not make(folder).computed
    first, last = folder / "00000.png", folder / "00029.png"
    if how == "changed":
        first.write_bytes(last.read_bytes())
    elif how == "added":
        shutil.copy(first, folder / "extra.png")
    elif how == "removed":
        last.unlink()
    else:
        first.rename(folder / "zzz.png")
    assert make(folder).computed


def test_a_file_of_equal_size_and_restored_time_misses(tmp_path, rng, remember):
    path = tmp_path / "reference.npy"
    np.save(path, pictures(rng, 10))
    before = path.stat()
    remember()
    make(path)
    assert not make(path).computed
    np.save(tmp_path / "other.npy", pictures(rng, 10))
    path.write_bytes((tmp_path / "other.npy").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert make(path).computed


def test_a_file_swapped_for_one_of_equal_size_and_time_misses(tmp_path, rng, remember):
    path, other = tmp_path / "reference.npy", tmp_path / "other.npy"
    for place in (path, other):
        np.save(place, pictures(rng, 10))
        os.utime(place, ns=(10**18, 10**18))
    remember()
    make(path)
    assert not make(path).computed
    other.replace(path)
    assert make(path).computed


def test_features_are_kept_when_asked_for_later(folder, monkeypatch):
    monkeypatch.setattr("genbench.evaluation.collect.SPILL_ROWS", 8)
    assert make(folder, batch_size=4).stored.features is None
    made = make(folder, batch_size=4, features=True)
    assert made.computed and made.stored.features.shape == (30, 6)
    assert not make(folder, features=True).computed


def test_spatial_statistics_are_made_when_asked_for(folder):
    assert make(folder).stored.spatial_moments is None
    made = make(folder, spatial=True)
    assert made.computed and made.stored.spatial_moments.width == 3
    assert not make(folder, spatial=True).computed


def test_what_cannot_be_made_is_refused(tmp_path, rng, folder):
    class Flat(PixelExtractor):
        def extract(self, images):
            return Features(super().extract(images).features)

    with pytest.raises(UsageError, match="no spatial features"):
        make(folder, Flat(), spatial=True)
    np.savez(tmp_path / "s.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(UsageError, match="statistics already"):
        make(tmp_path / "s.npz")
    with pytest.raises(DataError, match="at least 2"):
        make(save(tmp_path / "one", pictures(rng, 1)))
    with pytest.raises(UsageError, match="only once"):
        make(iter(list(pictures(rng, 4))))


def test_other_tools_read_the_file(folder, tmp_path):
    stored = make(folder, spatial=True, features=True).stored
    path = tmp_path / "out.npz"
    export_statistics(path, stored, features=True, spatial=True)
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    mean, covariance = fid_score.compute_statistics_of_path(str(path), None, 1, 6, "cpu")
    assert np.array_equal(mean, stored.moments.mean)
    assert np.array_equal(covariance, stored.moments.covariance())
    arrays = np.load(path)
    assert arrays["mu"].dtype == arrays["sigma"].dtype == np.float64
    assert np.array_equal(arrays["mu_s"], stored.spatial_moments.mean)
    assert np.array_equal(arrays["sigma_s"], stored.spatial_moments.covariance())
    assert np.array_equal(arrays["features"], stored.features)
    assert arrays["count"] == 30
    passport = json.loads(str(arrays["genbench"]))
    assert passport == read_passport(path)
    assert passport["extractor"] == PixelExtractor().identity
    assert passport["fingerprint"] == open_source(folder).fingerprint()
    assert read_statistics(path).count == 30


def test_a_written_file_gives_the_same_distance(folder, tmp_path, rng):
    samples = pictures(rng, 20)
    export_statistics(tmp_path / "out.npz", make(folder).stored)
    direct = evaluate(samples, folder, ("fid",), extractor=PixelExtractor())
    through = evaluate(samples, tmp_path / "out.npz", ("fid",), extractor=PixelExtractor())
    assert through["fid"].value == pytest.approx(direct["fid"].value, rel=1e-9)


def test_the_verb_makes_shows_verifies_and_clears(tmp_path):
    out = tmp_path / "digits.npz"
    first = verb("make", "digits:test", "--extractor", "digits-cnn", "--out", out)
    assert first.exception is None and "computed" in first.output
    assert "found in the cache" in verb("make", "digits:test", "--extractor", "digits-cnn").output
    (key,) = StatisticsCache().keys()
    assert key in first.output
    assert "digits:test" in verb("show").output and key[:12] in verb("show").output
    assert key in verb("show", key[:10]).output and "weights_sha256" in verb("show", key[:10]).output
    shown = verb("show", out).output
    assert "digits:test" in shown and "digits-cnn" in shown
    assert verb("verify").return_value == 0 and verb("verify", "--full").return_value == 0
    entry = StatisticsCache().folder / key
    content = bytearray((entry / "features.npy").read_bytes())
    content[-1] ^= 1
    (entry / "features.npy").write_bytes(content)
    found = verb("verify")
    assert found.return_value == 1 and key in found.output and "features.npy" in found.output
    (entry / "manifest.json").unlink()
    assert "damaged" in verb("show").output
    assert verb("verify").return_value == 1
    assert "1 entries deleted, 0 left" in verb("clear", key[:12]).output
    assert StatisticsCache().keys() == []


def test_clear_spares_what_is_young(folder):
    make(folder)
    assert "0 entries deleted, 1 left" in verb("clear", "--older-than", "1").output
    entry = StatisticsCache().folder / StatisticsCache().keys()[0]
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps({**manifest, "created": "2020-01-01T00:00:00+00:00"}))
    assert "1 entries deleted, 0 left" in verb("clear", "--older-than", "1").output


def test_a_foreign_statistics_file_says_what_is_not_known(tmp_path):
    np.savez(tmp_path / "s.npz", mu=np.zeros(3), sigma=np.eye(3))
    shown = verb("show", tmp_path / "s.npz")
    assert shown.exception is None
    assert "not known" in shown.output and "trace       3" in shown.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("make", "digits:test", "--extractor", "digits-cnn", "--out", "x.json"), "ends in .npz"),
        (("make", "digits:test", "--protocol", "tf2"), "Unknown protocol"),
        (("make", "digits:test", "--extractor", "digits"), "Unknown extractor"),
        (("make", "nowhere"), "nowhere"),
        (("show", "ffff"), "no key"),
        (("clear", "ffff"), "no key"),
    ],
)
def test_bad_usage(arguments, message):
    found = verb(*arguments)
    assert isinstance(found.exception, UsageError) and message in str(found.exception)
