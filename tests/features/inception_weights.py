"""Random weights in the format of ``pt_inception-2015-12-05-6726825d.pth``, which every InceptionV3 tool can load."""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import inception as tv

from genbench.files import atomic_path

FILE_NAME = "pt_inception-2015-12-05-6726825d.pth"
LOGIT_SPREAD = 2.0


def varied_images(num_images, size=32, channels=3, seed=0):
    """(N, C, size, size) uint8 images that differ in colour, contrast, coarse shapes and fine texture."""
    rng = np.random.default_rng(seed)
    mean, spread = rng.uniform(60, 195, (num_images, channels, 1, 1)), rng.uniform(10, 90, (num_images, 1, 1, 1))
    coarse = rng.normal(size=(num_images, channels, 4, 4)).repeat(-(-size // 4), 2).repeat(-(-size // 4), 3)
    fine = rng.normal(size=(num_images, channels, size, size)) * rng.uniform(0, 1, (num_images, 1, 1, 1))
    return np.clip(mean + spread * (coarse[:, :, :size, :size] + fine), 0, 255).astype(np.uint8)


def random_state(seed=0):
    """A seeded state dict: names and shapes of the published file, without counters of batch normalisation.

    Every batch normalisation holds the statistics that its layer has on a few `varied_images`, so that activations
    neither die nor explode. Scales and offsets are drawn around 1: with offsets around 0 a random network of this depth
    is chaotic, and two ways of rounding drift apart by 4e-5. The classifier ignores what all images share and spreads
    logits by 2, so that an Inception Score is well above 1.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        network = tv.Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    network.to_empty(device="cpu").requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(std=module.weight[0].numel() ** -0.5, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.6, 1.4, generator=generator)
            module.bias.normal_(mean=1.0, std=0.3, generator=generator)
            module.reset_running_stats()
            module.momentum = 1.0
    network.fc.weight.normal_(generator=generator)
    network.fc.bias.normal_(generator=generator)
    _separate_classes(network.fc, _calibrate(network, seed))
    return OrderedDict((k, v) for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked"))


def _calibrate(network, seed):
    """Fill the batch statistics; gives the features (N, 2048) that the images had."""
    images = torch.from_numpy(varied_images(8, seed=seed)).float()
    pooled = []
    hook = network.avgpool.register_forward_hook(lambda module, given, output: pooled.append(output.flatten(1)))
    with torch.no_grad():
        network.train()((F.interpolate(images, size=299, mode="bilinear") - 128.0) / 128.0)
    hook.remove()
    return pooled[0]


def _separate_classes(classifier, features):
    mean = features.mean(0)
    classifier.weight -= torch.outer(classifier.weight @ mean, mean) / mean.dot(mean)
    classifier.weight *= LOGIT_SPREAD / (features @ classifier.weight.T).std()


def write_weights(path, state=None):
    """Write a state dict, that of `random_state` where none is given; the file is there whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save(random_state() if state is None else state, temporary)
    return path
