"""Drawing samples and counting forward calls."""

import numpy as np
import pytest
import toys

from genbench.api import ImageSpec, ModelConfig
from genbench.sample import ModelOutputError, draw_samples
from genbench.timing import counted_evaluations
from genbench.train import build_model

SPEC = ImageSpec(1, 4, 4, 5)


def model(cls=toys.Histogram):
    return build_model(cls, ModelConfig(), SPEC, 0).eval()


def test_batches_do_not_matter_and_prefixes_agree():
    ten = draw_samples(model(), 10, seed=0, batch_size=3)
    assert np.array_equal(ten, draw_samples(model(), 10, seed=0, batch_size=10))
    assert np.array_equal(ten[:4], draw_samples(model(), 4, seed=0, batch_size=64))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (toys.WrongShape, r"shape \(2, 4, 4\), expected \(2, 1, 4, 4\)"),
        (toys.WrongType, "float32 holding NaN"),
        (toys.OffLevels, "5 levels"),
    ],
)
def test_wrong_output_is_described(cls, message):
    with pytest.raises(ModelOutputError, match=message):
        draw_samples(model(cls), 2, seed=0, batch_size=2)


def test_evaluations_are_forward_calls():
    counted = model()
    with counted_evaluations(counted) as count:
        counted.net()
        counted.net()
    counted.net()
    assert count() == 2
