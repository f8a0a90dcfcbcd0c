"""Values of the contract refuse what no model could honour."""

import pytest
import torch

from genbench.api import Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.noise import NoiseSource

SPEC = ImageSpec(3, 2, 2, 4)


def request(mask, source):
    return SampleRequest(NoiseSource(0, torch.arange(2)), condition=Condition(mask=mask, source=source))


@pytest.mark.parametrize("steps", [0, -3])
def test_a_sampler_takes_at_least_one_step(steps):
    with pytest.raises(UsageError, match=f"at least 1 step, got steps = {steps}"):
        SamplerOptions(steps=steps)
    assert SamplerOptions(steps=1).steps == 1


def test_given_values_are_levels_of_all_colours():
    mask = torch.tensor([[[[True, False], [False, False]]], [[[False, False], [False, True]]]])
    source = torch.tensor([0, 85, 170, 255], dtype=torch.uint8).view(1, 1, 2, 2).expand(2, 3, 2, 2)
    given = request(mask, source).given(SPEC)
    assert given.mask.shape == given.levels.shape == (2, 3, 2, 2)
    assert given.levels[1, 2].tolist() == [[0, 1], [2, 3]]
    assert given.mask[0].all(0).tolist() == [[True, False], [False, False]]
    assert request(None, source).given(SPEC) is None


@pytest.mark.parametrize(
    ("mask_shape", "source_shape", "told"),
    [
        ((2, 1, 2, 2), None, "and no source, expected"),
        ((2, 1, 2, 2), (1, 3, 2, 2), r"a source of shape \(1, 3, 2, 2\), expected \(2, 1, 2, 2\) and \(2, 3, 2, 2\)"),
        ((2, 1, 3, 2), (2, 3, 2, 2), r"a mask of shape \(2, 1, 3, 2\)"),
        ((1, 1, 2, 2), (2, 3, 2, 2), r"a mask of shape \(1, 1, 2, 2\)"),
    ],
)
def test_a_mask_needs_a_source_for_each_sample(mask_shape, source_shape, told):
    source = None if source_shape is None else torch.zeros(source_shape, dtype=torch.uint8)
    with pytest.raises(UsageError, match=told):
        request(torch.ones(mask_shape, dtype=torch.bool), source).given(SPEC)
