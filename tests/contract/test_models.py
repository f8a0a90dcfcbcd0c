"""Every registered model and control satisfies the contract."""

import pytest

from genbench import registry, testing

NAMES = [*registry.names("models"), *registry.names("controls")]


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", NAMES)
def test_contract(name, check):
    subject = testing.subject_for(registry.load_model(name), reference=name)
    check(subject)
