"""Small inputs for evaluations: images on disk and in memory, and networks that need no weights."""

import numpy as np
from PIL import Image

from genbench.features.base import Features


class PixelExtractor:
    """Features are a fixed linear map of a few pixel statistics, which exist for images of any size."""

    name = "pixels"
    notes = ()
    input_size = None

    def __init__(self, width=6, logits=True):
        self.width, self.with_logits, self.images_seen = width, logits, 0
        self._map = np.random.default_rng(3).normal(size=(12, width))

    @property
    def identity(self):
        return {"name": self.name, "weights_sha256": "1" * 64, "width": self.width}

    def extract(self, images):
        self.images_seen += len(images)
        x = images.astype(np.float64) / 255.0
        x = np.repeat(x, 3, 1) if x.shape[1] == 1 else x
        half = x.shape[2] // 2
        parts = [x.mean((2, 3)), x.std((2, 3)), x[:, :, :half].mean((2, 3)), x[:, :, 0, 0]]
        features = (np.concatenate(parts, 1) @ self._map).astype(np.float32)
        return Features(features, features[:, :4] * 3 if self.with_logits else None, features[:, :3])


class WordModel:
    """Embeds an image by its mean, and a text by the number it ends with."""

    name, notes, context_length = "words", (), 77

    @property
    def identity(self):
        return {"name": self.name}

    def encode_images(self, images):
        mean = images.astype(np.float64).mean((1, 2, 3)) / 255
        return np.stack([np.cos(mean), np.sin(mean)], 1).astype(np.float32)

    def encode_texts(self, texts):
        value = np.array([float(text.split()[-1]) for text in texts])
        return np.stack([np.cos(value), np.sin(value)], 1).astype(np.float32)


def pictures(rng, count, shape=(3, 16, 16), shift=0):
    """Noisy pictures of random brightness."""
    base = rng.integers(40, 180, (count, shape[0], 1, 1))
    noise = rng.integers(-30, 30, (count, *shape))
    return np.clip(base + noise + shift, 0, 255).astype(np.uint8)


def save(folder, images, suffix="png"):
    """Write (N, C, H, W) as files; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        array = image.transpose(1, 2, 0) if image.shape[0] == 3 else image[0]
        Image.fromarray(array).save(folder / f"{i:05d}.{suffix}", **({"quality": 90} if suffix == "jpg" else {}))
    return folder


def spatial_statistics(features):
    """``mu``, ``sigma``, ``mu_s`` and ``sigma_s`` of features, as a statistics file has them."""
    main, spatial = (array.astype(np.float64) for array in (features.features, features.spatial))
    return {
        "mu": main.mean(0),
        "sigma": np.cov(main, rowvar=False),
        "mu_s": spatial.mean(0),
        "sigma_s": np.cov(spatial, rowvar=False),
    }


def save_classes(folder, images, names):
    """Write image i into the class folder ``names[i % len(names)]``; returns the folder."""
    for k, name in enumerate(names):
        save(folder / name, images[k :: len(names)])
    return folder


def collect_share(arguments):
    """What one process collects of its share of the samples; runs in a process of its own."""
    import genbench

    reference, samples, index, metrics, options = arguments
    evaluator = genbench.Evaluator(reference, metrics, extractor=PixelExtractor(), options=options)
    evaluator.update(samples, index=index)
    return evaluator.collected()
