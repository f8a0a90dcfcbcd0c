"""The contract suite passes a sound model and catches each way of breaking the contract."""

import pytest
import toys

from genbench import testing


def test_sound_model_passes():
    testing.check_model(toys.Histogram)


@pytest.mark.parametrize(
    ("model", "check", "message"),
    [
        (toys.UsesGlobalNoise, testing.check_sampling, "differ"),
        (toys.UsesGlobalNoise, testing.check_global_generators, "global generator"),
        (toys.ForgetsState, testing.check_resume, "differs after a resumed training"),
        (toys.BadLikelihood, testing.check_likelihood, "not finite"),
    ],
)
def test_broken_models_are_caught(model, check, message):
    with pytest.raises(AssertionError, match=message):
        check(testing.subject_for(model))


@pytest.mark.parametrize(
    ("model", "message"),
    [(toys.WrongShape, "shape"), (toys.WrongType, "NaN"), (toys.OffLevels, "17 levels")],
)
def test_wrong_images_are_caught(model, message):
    with pytest.raises(Exception, match=message):
        testing.check_sampling(testing.subject_for(model))
