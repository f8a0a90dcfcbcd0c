"""Densities along ODEs: divergences, a linear flow with known density, the solver's order."""

import math

import pytest
import torch

from genbench.likelihood.ode import (
    exact_divergence,
    hutchinson_divergence,
    solve,
    solve_with_divergence,
)

A = torch.tensor([[0.3, -1.0, 0.2], [0.9, -0.4, 0.0], [0.1, 0.5, 0.25]], dtype=torch.float64)


def linear(t, x):
    return x @ A.T


def curved(t, x):
    return torch.tanh(x @ A.T) * (1 + t) + x**2


def test_exact_divergence_is_the_trace_of_autograds_jacobian():
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor(0.7, dtype=torch.float64)
    with torch.no_grad():
        velocity, trace = exact_divergence(curved, t, x)
    assert torch.equal(velocity, curved(t, x)) and not trace.requires_grad
    for row, found in zip(x, trace):
        jacobian = torch.autograd.functional.jacobian(lambda v: curved(t, v[None])[0], row)
        assert found == pytest.approx(float(torch.trace(jacobian)), rel=1e-12)


def test_hutchinsons_mean_over_all_signs_is_the_exact_trace():
    x = torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.tensor(0.2, dtype=torch.float64)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    with torch.no_grad():
        estimates = hutchinson_divergence(signs)(curved, t, x.expand(8, -1).contiguous())[1]
        exact = float(exact_divergence(curved, t, x)[1])
    assert estimates.std() > 0.1
    assert float(estimates.mean()) == pytest.approx(exact, rel=1e-12)


def test_a_linear_flow_has_the_matrix_exponential_and_its_density():
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    times = torch.linspace(0, 1, 41, dtype=torch.float64)
    end, integral = solve_with_divergence(linear, x, times, exact_divergence)
    assert torch.allclose(end, x @ torch.linalg.matrix_exp(A).T, atol=1e-7)
    assert torch.allclose(integral, torch.full((5,), float(torch.trace(A)), dtype=torch.float64), atol=1e-9)
    assert torch.allclose(solve(linear, end, times.flip(0)), x, atol=1e-7), "backwards in time"
    covariance = torch.linalg.matrix_exp(A) @ torch.linalg.matrix_exp(A).T
    target = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance)
    base = -0.5 * (x**2).sum(1) - 1.5 * math.log(2 * math.pi)
    assert torch.allclose(target.log_prob(end), base - integral, atol=1e-6)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_halving_the_step_shows_the_solvers_order(method, order):
    x = 0.3 * torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    truth = solve_with_divergence(curved, x, torch.linspace(0, 0.5, 513, dtype=torch.float64), exact_divergence)[1]

    def error(steps):
        times = torch.linspace(0, 0.5, steps + 1, dtype=torch.float64)
        return float(
            (solve_with_divergence(curved, x, times, exact_divergence, method)[1] - truth).detach().abs().max()
        )

    assert math.log2(error(8) / error(16)) == pytest.approx(order, abs=0.35)


def test_gradients_reach_the_fields_parameters():
    w = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x = torch.ones(2, 1, dtype=torch.float64)
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    eps = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    for divergence in (exact_divergence, hutchinson_divergence(eps)):
        end, integral = solve_with_divergence(lambda t, v: w * v, x, times, divergence)
        (of_end,) = torch.autograd.grad(end.sum(), w, retain_graph=True)
        (of_integral,) = torch.autograd.grad(integral.sum(), w)
        assert float(of_end) == pytest.approx(2 * math.exp(0.5), rel=1e-5)
        assert float(of_integral) == pytest.approx(2.0, rel=1e-9)
