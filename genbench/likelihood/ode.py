"""Densities along ordinary differential equations: continuous normalising flows and probability-flow ODEs.

Where dx/dt = f(t, x), the log-density along a path changes by d log p / dt = -div f (Chen et al., "Neural Ordinary
Differential Equations", NeurIPS 2018, theorem 1), so that

    log p_0(x(0)) = log p_1(x(1)) + integral from 0 to 1 of div f(t, x(t)) dt.

The divergence is the trace of the Jacobian: exact, one vector-Jacobian product a dimension, or Hutchinson's estimate
eps^T J eps with one draw of eps for a whole solve (Grathwohl et al., "FFJORD", ICLR 2019, section 3.1), which keeps
the integrand smooth in t and the integral unbiased. The solver is torchdiffeq's, on a fixed grid: an adaptive step
would be chosen for a batch as a whole, and an image's number would depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

VectorField = Callable[[Tensor, Tensor], Tensor]
"""f(t, x): t () and x (B, ...) to dx/dt (B, ...)."""
Divergence = Callable[[VectorField, Tensor, Tensor], tuple[Tensor, Tensor]]
"""f, t, x to (dx/dt, div f (B,))."""
Method = Literal["euler", "midpoint", "rk4"]


def exact_divergence(field: VectorField, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """dx/dt and the trace of its Jacobian, by D vector-Jacobian products; rows of a batch must not interact."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        velocity = field(t, x)
        flat = velocity.flatten(1)
        trace = torch.zeros(len(x), dtype=velocity.dtype, device=x.device)
        for i in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, i].sum(), x, create_graph=keep, retain_graph=True)
            trace = trace + row.flatten(1)[:, i]
    return (velocity, trace) if keep else (velocity.detach(), trace.detach())


def hutchinson_divergence(eps: Tensor) -> Divergence:
    """The estimate eps^T J eps with the given probes (B, ...) of zero mean and unit covariance (Rademacher, say)."""

    def divergence(field: VectorField, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            velocity = field(t, x)
            (product,) = torch.autograd.grad((velocity * eps).sum(), x, create_graph=keep)
        trace = (product * eps).flatten(1).sum(1)
        return (velocity, trace) if keep else (velocity.detach(), trace.detach())

    return divergence


def solve(field: VectorField, x: Tensor, times: Tensor, method: Method = "rk4") -> Tensor:
    """x (B, ...) at ``times[0]`` to x at ``times[-1]``, one step of the solver between neighbouring times."""
    from torchdiffeq import odeint

    path: Tensor = odeint(field, x, times, method=method)
    return path[-1]


def solve_with_divergence(
    field: VectorField, x: Tensor, times: Tensor, divergence: Divergence, method: Method = "rk4"
) -> tuple[Tensor, Tensor]:
    """x at ``times[-1]``, and the integral (B,) of div f along the path: minus the change of the log-density.

    Differentiable where gradients are enabled.
    """
    from torchdiffeq import odeint

    def joint(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return divergence(field, t, state[0])

    start = (x, torch.zeros(len(x), dtype=x.dtype, device=x.device))
    path, integral = odeint(joint, start, times, method=method)
    return path[-1], integral[-1]
