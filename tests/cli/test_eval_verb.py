"""``genbench eval`` as a user calls it: offline numbers, JSON, exit statuses, one clear sentence for bad input."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import genbench
from genbench.cli.main import main
from genbench.data import load_dataset
from genbench.errors import GenbenchError
from genbench.evaluation.result import EvalResult, read_result

OFFLINE = ("digits:train", "--extractor", "digits-cnn")
FIVE = "fid,is,kid,precision,recall"


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GENBENCH_WEIGHTS", raising=False)
    monkeypatch.setattr("socket.socket.connect", refuse)


def refuse(*arguments):
    raise OSError("no network in tests")


def call(capfd, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, arguments)))
    streams = capfd.readouterr()
    return stop.value.code, streams.out, streams.err


def digits_folder(folder, split="test", count=100):
    folder.mkdir(parents=True)
    for i, image in enumerate(getattr(load_dataset("digits"), split).images[:count]):
        Image.fromarray(image[0]).save(folder / f"{i:04d}.png")
    return folder


def test_offline_numbers_and_json(capfd, tmp_path):
    samples = digits_folder(tmp_path / "samples")
    status, out, err = call(
        capfd,
        "eval",
        samples,
        "digits:train",
        "--extractor",
        "digits-cnn",
        "--metrics",
        FIVE,
        "--json",
        tmp_path / "a.json",
    )
    assert status == 0 and "Traceback" not in err
    for name in ("fid", "inception_score", "kid", "precision", "recall", "95 % interval", "samples    samples"):
        assert name in out
    assert "warning 100 samples" in out
    result = read_result(tmp_path / "a.json")
    assert [metric.name for metric in result.metrics] == ["fid", "inception_score", "kid", "precision", "recall"]
    assert all(metric.status == "ok" and metric.ci95[0] <= metric.value <= metric.ci95[1] for metric in result.metrics)
    assert result.reference.kind == "dataset" and result.samples.formats == {"PNG": 100}
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["metrics"][0]["comparable"]["extractor"]["name"] == "digits-cnn"
    direct = genbench.evaluate(samples, "digits:train", FIVE.split(","), extractor="digits-cnn")
    assert [m.value for m in direct.metrics] == [m.value for m in result.metrics]


def test_missing_weights_say_what_to_do(capfd, tmp_path):
    samples = digits_folder(tmp_path / "samples", count=4)
    status, _, err = call(capfd, "eval", samples, "digits:train", "--metrics", "fid")
    assert status == 2
    for part in ("pt_inception-2015-12-05-6726825d.pth", "genbench weights add", "digits-cnn"):
        assert part in err


def test_a_failed_metric_is_status_one(capfd, tmp_path):
    samples = digits_folder(tmp_path / "samples", count=4)
    status, out, _ = call(capfd, "eval", samples, samples, "--pairs", "--metrics", "psnr_pooled,mse")
    assert status == 2
    status, out, _ = call(capfd, "eval", samples, samples, "--pairs", "--metrics", "ssim,psnr")
    assert status == 0 and "not applicable" in out and "infinite" in out


def bad_inputs(tmp_path):
    """Arguments after ``eval`` and what the message must say."""
    good = digits_folder(tmp_path / "good", count=6)
    (tmp_path / "empty").mkdir()
    one = digits_folder(tmp_path / "one", count=1)
    broken = digits_folder(tmp_path / "broken", count=6)
    (broken / "0002.png").write_bytes((broken / "0002.png").read_bytes()[:40])
    np.savez(tmp_path / "wrong.npz", pictures=np.zeros((3, 8, 8, 1), np.uint8))
    np.save(tmp_path / "floats.npy", np.full((4, 1, 8, 8), 1.5))
    np.save(tmp_path / "nan.npy", np.full((4, 1, 8, 8), np.nan))
    np.save(tmp_path / "both.npy", np.zeros((4, 3, 8, 3), np.uint8))
    np.save(tmp_path / "big.npy", np.full((4, 1, 8, 8), 300))
    with zipfile.ZipFile(tmp_path / "climbs.zip", "w") as archive:
        archive.write(good / "0000.png", "../out.png")
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    reference = ["digits:train", "--extractor", "digits-cnn", "--metrics", "fid"]
    return [
        ([tmp_path / "empty", *reference], "no images"),
        ([one, *reference], "at least 2"),
        ([broken, *reference], "0002.png"),
        ([tmp_path / "nowhere", *reference], "nowhere"),
        ([tmp_path / "wrong.npz", *reference], "pictures"),
        ([tmp_path / "floats.npy", *reference], "[0, 1]"),
        ([tmp_path / "nan.npy", *reference], "NaN"),
        ([tmp_path / "both.npy", *reference], "layout"),
        ([tmp_path / "big.npy", *reference], "255"),
        ([tmp_path / "climbs.zip", *reference], "../out.png"),
        ([good, "--metrics", "fid"], "REFERENCE"),
        ([good, "digits:trian", "--metrics", "fid", "--extractor", "digits-cnn"], "Did you mean 'train'"),
        ([good, "digits:train", "--metrics", "fdi"], "Did you mean 'fid'"),
        ([good, "digits:train", "--protocol", "clena"], "Did you mean 'clean'"),
        ([good, "digits:train", "--extractor", "digits-cn"], "Did you mean 'digits-cnn'"),
        ([good, "digits:train", "--weights", tmp_path / "weights.pth", "--metrics", "fid"], "weights.pth"),
        ([good, "--metrics", "clip_score", "--image-text", "digits-clip", "--prompts", tmp_path / "prompts.txt"], "2"),
        ([good, "digits:train", "--metrics", "ssim"], "--pairs"),
        ([good, one, "--pairs", "--metrics", "ssim"], "6"),
        ([good, *reference, "--json", tmp_path / "result.txt"], ".json"),
    ]


def test_bad_input_is_one_sentence(capfd, tmp_path):
    for arguments, message in bad_inputs(tmp_path):
        status, out, err = call(capfd, "eval", *arguments)
        said = " ".join((out + err).split())
        assert (status, "Traceback" in said) == (2, False), (arguments, said)
        assert message in said, (arguments, said)


def test_skipping_unreadable_images(capfd, tmp_path):
    broken = digits_folder(tmp_path / "broken", count=30)
    (broken / "0002.png").write_bytes(b"")
    arguments = ["eval", broken, "digits:train", "--extractor", "digits-cnn", "--metrics", "fid"]
    status, out, _ = call(capfd, *arguments, "--on-error", "skip")
    assert status == 0 and "29" in out and "1 unreadable samples were left out" in out


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits").test.images[:12]


def encoded(images):
    made = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image[0]).save(stream, "PNG")
        made.append(stream.getvalue())
    return made


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_lies_in_a_folder(digits, tmp_path_factory, data):
    """Damaged, foreign and odd files end in a result or in an error of ours."""
    folder = tmp_path_factory.mktemp("any")
    for i, content in enumerate(encoded(digits)):
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(content) - 1))
            content = content[:at] + data.draw(st.binary(max_size=9)) + content[at + data.draw(st.integers(0, 9)) :]
        suffix = data.draw(st.sampled_from(["png", "PNG", "jpg", "tiff", "txt", "npz"]))
        (folder / f"{i}.{suffix}").write_bytes(content)
    on_error = data.draw(st.sampled_from(["fail", "skip"]))
    with_result(folder, on_error=on_error)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=5),
    dtype=st.sampled_from(["uint8", "int16", "int64", "float16", "float32", "float64", "bool", "complex64", "U3"]),
    fill=st.sampled_from([0, 1, 0.5, -1, 255, 256, float("nan"), float("inf")]),
)
def test_whatever_array(shape, dtype, fill):
    with np.errstate(all="ignore"):
        try:
            array = np.full(shape, fill).astype(dtype)
        except (ValueError, OverflowError):
            return
    with_result(array)


def with_result(samples, **more):
    try:
        found = genbench.evaluate(
            samples, "digits:test", ["fid", "is", "precision"], extractor="digits-cnn", cache=False, **more
        )
    except GenbenchError as error:
        assert str(error)
        return
    assert isinstance(found, EvalResult)
    assert all(metric.status == "ok" or metric.reason for metric in found.metrics)


def test_prompts_offline(capfd, tmp_path):
    samples = digits_folder(tmp_path / "samples", count=50)
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    labels = load_dataset("digits").test.labels[:50]
    (tmp_path / "prompts.txt").write_text("\n".join(f"the handwritten digit {names[label]}" for label in labels))
    arguments = ["eval", samples, "--extractor", "digits-clip", "--metrics", "clip_score,clip_r_precision"]
    status, out, _ = call(capfd, *arguments, "--prompts", tmp_path / "prompts.txt", "--json", tmp_path / "a.json")
    result = read_result(tmp_path / "a.json")
    assert status == 0 and "digits-clip" in out
    assert result["clip_score"].value > 1.5 and result["clip_r_precision"].value > 0.9
    assert result["clip_score"].extractor == "digits-clip"
