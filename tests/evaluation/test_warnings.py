"""Warnings of what was read: each has its code, and stays when the reference comes from the cache."""

import numpy as np
import pytest
from eval_inputs import PixelExtractor, pictures, save
from PIL import Image

import genbench


class Enlarging(PixelExtractor):
    input_size = 64


def codes(result):
    return {warning.code for warning in result.warnings}


def run(samples, reference, **more):
    return genbench.evaluate(samples, reference, ["fid"], extractor=more.pop("extractor", PixelExtractor()), **more)


@pytest.mark.parametrize(("side", "warned"), [(16, False), (15, True)])
def test_upscaling_over_four_times(rng, side, warned):
    images = pictures(rng, 12, (3, side, side))
    assert ("upscaling" in codes(run(images, images[::-1], extractor=Enlarging()))) == warned


@pytest.mark.parametrize("where", ["samples", "reference"])
def test_transparency_and_sixteen_bits(rng, tmp_path, where):
    images = pictures(rng, 8)
    folder = save(tmp_path / "odd", images)
    rgba = np.concatenate([images[0].transpose(1, 2, 0), np.full((16, 16, 1), 90, np.uint8)], 2)
    Image.fromarray(rgba).save(folder / "00000.png")
    Image.fromarray(rng.integers(0, 65536, (16, 16)).astype(np.uint16)).save(folder / "deep.png")
    other = pictures(rng, 9)
    sides = (folder, other) if where == "samples" else (other, folder)
    for _ in range(2):
        found = run(*sides)
        assert {"transparency", "sixteen-bit"} <= codes(found)
        texts = [w.message for w in found.warnings if w.code in ("transparency", "sixteen-bit")]
        assert len(texts) == 2 and all(text.startswith("1 ") for text in texts)


def test_copies_among_the_reference(rng):
    reference = pictures(rng, 20)
    reference[5] = reference[9]
    for _ in range(2):
        (warning,) = [w for w in run(pictures(rng, 9), reference).warnings if w.code == "duplicates"]
        assert "1 of 20 reference images" in warning.message


def test_nothing_is_cached_of_a_reference_with_unreadable_images(rng, tmp_path):
    folder = save(tmp_path / "ref", pictures(rng, 20))
    (folder / "00003.png").write_bytes(b"")
    extractor = PixelExtractor()
    for _ in range(2):
        found = run(pictures(rng, 9), folder, on_error="skip", extractor=extractor)
        assert "skipped" in codes(found) and found.reference.count == 19
    assert extractor.images_seen == 2 * (9 + 19)


def test_precision_reaches_the_network(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "genbench.evaluation.networks.load_extractor", lambda spec, options: asked.append(options) or PixelExtractor()
    )
    genbench.Evaluator(np.zeros((3, 3, 8, 8), np.uint8), ["fid"], precision="bfloat16", protocol="clean")
    genbench.Evaluator(np.zeros((3, 3, 8, 8), np.uint8), ["sfid"])
    assert [(o.precision, o.preprocessing, o.spatial) for o in asked] == [
        ("bfloat16", "clean", False),
        ("float32", "tf1", True),
    ]
