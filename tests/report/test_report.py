"""The report as a file: what it holds, what it escapes, and that missing or damaged pieces become notes."""

import base64
import hashlib
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from report_fixture import HOSTILE, write_run

from genbench.errors import UsageError
from genbench.files import write_npz
from genbench.report.build import build_report
from genbench.report.charts import time_chart
from genbench.report.grids import enlarge, mosaic, pairs, png_uri, square_grid
from genbench.report.load import flat_seconds


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


@pytest.fixture(scope="module")
def page(original):
    return build_report(original).read_text(encoding="utf-8")


def html(run):
    return build_report(run).read_text(encoding="utf-8")


def body(text):
    """The page without scripts and styles."""
    return re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.S)


def test_the_report_is_one_small_file_without_addresses(page):
    assert len(page) < 3_000_000
    assert not re.search(r"""(src|href|action)=["'](?!data:|#)""", body(page))
    assert '<meta name="genbench:record-schema" content="1">' in page
    assert re.search(r'<meta name="generator" content="genbench \d', page)


def test_only_our_scripts_may_run_and_nothing_is_fetched(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page).group(1).replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:;")
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
    assert len(scripts) == 3
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_names_and_reasons_stay_text(page):
    assert HOSTILE not in body(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "no likelihood &lt;b&gt;here&lt;/b&gt;" in page
    data = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', page, flags=re.S).group(1)
    assert "<" not in data
    names = [trace["name"] for spec in json.loads(data) for trace in spec["data"]]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in names


def test_every_section_is_filled(page):
    text = body(page)
    for piece in (
        "Among 6 models, ddpm has the lowest FID",
        "tied with pixelcnn",
        "≤ 2.116",
        "iwae-500",
        "TrainingError: loss is nan at step 312",
        "Recall (digits-cnn) did not catch mode_dropper",
        "a GAN has no likelihood",
        "0123456789ab<",
        "genbench run --suite digits",
        "2 min 08 s on the clock",
        "Model card: diffusion / ddpm",
        "threshold &lt;held&gt; fixed",
    ):
        assert piece in text, piece
    assert text.count("data:image/png;base64,") == 11 + 2 + 2 + 10
    for chart in ("chart-images-per-second", "chart-parameters", "chart-time", "chart-training-1"):
        assert f'id="{chart}"' in text


def test_every_image_has_words_and_a_size(page):
    images = re.findall(r"<img [^>]*>", page)
    assert all(re.search(r'width="\d+" height="\d+" alt="[^"]+"', image) for image in images)


def test_rows_follow_the_manifest_and_others_are_left_out(run):
    manifest = json.loads((run / "run.json").read_text())
    manifest["rows"] = ["ddpm-s0", "vae-s0"]
    (run / "run.json").write_text(json.dumps(manifest))
    text = html(run)
    rows = re.findall(r'<th scope="row" data-sort="([^"]*)"', text)
    assert rows == ["ddpm", "vae"]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"rows": 3, "stage_seconds": [1], "suite": "x"}'])
def test_a_missing_or_damaged_manifest_shows_every_record(run, content):
    if content is None:
        (run / "run.json").unlink()
    else:
        (run / "run.json").write_text(content)
    text = body(html(run))
    assert len(re.findall(r'<th scope="row" data-sort=', text)) == 11
    assert "The run did not record how long its stages took." in text
    assert content is None or "rows" in content or "run.json" in text.split('class="notes"')[1]


def test_damaged_records_and_images_become_notes(run):
    (run / "records" / "vae-s0.json").write_text('{"schema_version": 1, "genb')
    (run / "records" / "dcgan-s0.json").unlink()
    (run / "samples" / "ddpm-s0.npz").write_bytes(b"PK\x03\x04 truncated")
    (run / "samples" / "noise-s0.npz").unlink()
    write_npz(run / "samples" / "gaussian-s0.npz", arr_0=np.zeros((4, 8, 8, 1), np.float32))
    write_npz(
        run / "gallery" / "ddpm-s0.npz",
        nearest=np.zeros((2, 5, 5, 1), np.uint8),
        nearest_samples=np.zeros((2, 8, 8, 1), np.uint8),
    )
    notes = body(html(run)).split('class="notes"')[1].split("</aside>")[0]
    assert "records/vae-s0.json is broken and left out: not a readable record" in notes
    assert "dcgan-s0 has no record" in notes
    assert "samples/ddpm-s0.npz cannot be read" in notes
    assert "samples/noise-s0.npz is missing" in notes
    assert "samples/gaussian-s0.npz: array &#39;arr_0&#39; is float32" in notes
    assert "gallery/ddpm-s0.npz: nearest_samples and nearest do not fit together" in notes


def test_code_in_an_array_file_does_not_run(run):
    stream = io.BytesIO()
    np.savez(stream, arr_0=np.array([object()], dtype=object))
    (run / "samples" / "vae-s0.npz").write_bytes(stream.getvalue())
    assert "samples/vae-s0.npz cannot be read" in html(run)


def test_without_records_samples_or_gallery_there_is_still_a_report(run):
    for folder in ("samples", "gallery", "records"):
        shutil.rmtree(run / folder)
        assert 'class="notes"' in html(run)
    assert "There is no record to compare." in html(run)


def test_failed_rows_alone_make_a_report(run):
    for path in (run / "records").glob("*.json"):
        if path.stem != "ebm-s0":
            path.unlink()
    text = body(html(run))
    assert "For the one model, ebm failed." in text
    assert "Fewer than two models have both a quality and a cost." in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not the folder of a run"):
        build_report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_mosaic_places_images_and_leaves_gaps_transparent():
    images = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1)
    pixels = mosaic(images, gap=1)
    assert pixels.shape == (3, 5, 2)
    assert pixels[::2, ::2, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert pixels[::2, ::2, 1].min() == 255
    assert pixels[1].max() == 0 == pixels[:, 1].max()


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_pixels(channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels + 1), dtype=np.uint8)
    decoded = Image.open(io.BytesIO(base64.b64decode(png_uri(image).split(",")[1])))
    assert np.array_equal(np.asarray(decoded), image)


def test_images_are_enlarged_by_whole_factors_and_large_ones_averaged():
    small = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    assert np.array_equal(enlarge(small)[:, ::4, ::4], small)
    assert enlarge(small).shape == (1, 32, 32, 1)
    large = np.zeros((1, 256, 256, 3), np.uint8)
    large[:, ::2] = 200
    assert np.unique(enlarge(large)).tolist() == [100]
    assert enlarge(large).shape == (1, 128, 128, 3)


def test_grids_take_what_there_is():
    images = np.zeros((5, 8, 8, 1), np.uint8)
    assert square_grid(images, "few").width == 2 * 34 - 2
    assert pairs(images, images[:3], "three").width == 3 * 34 - 2


def test_seconds_are_flattened_and_stacked_by_row():
    flat = flat_seconds({"train": {"vae": 2, "bad": None}, "report": 1.5, "nan": float("nan"), "flag": True})
    assert flat == {"train / vae": 2.0, "report": 1.5}
    chart = time_chart({"train vae": 2.0, "sample vae": 1.0, "report": 0.5})
    assert {trace["name"]: trace["x"] for trace in chart.data} == {
        "train": [2.0, 0],
        "sample": [1.0, 0],
        "other": [0, 0.5],
    }
    assert time_chart({}) is None
