"""Every registered model and control satisfies the contract."""

import pytest

from genbench import registry, testing

NAMES = [*registry.names("models"), *registry.names("controls")]
SHORT = {
    "ddpm": {"timesteps": 20, "ode_steps": 4, "latent_steps": 5},
    "ebm": {"sampling_steps": 20},
    "gsn": {"sampling_steps": 10},
    "rbm": {"sampling_steps": 20, "reverse_steps": 20, "validation_temperatures": 20},
}
"""Long chains cost time, and the contract nothing."""


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", NAMES)
def test_contract(name, check):
    subject = testing.subject_for(registry.load_model(name), reference=name, config=SHORT.get(name))
    check(subject)
