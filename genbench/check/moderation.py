"""Variances of few degrees of freedom, made surer by those of like quantities.

G. K. Smyth, *Linear models and empirical Bayes methods for assessing differential expression in microarray experiments*
(2004).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special


def prior_variance(variances: Sequence[float], freedoms: Sequence[float], caution: float = 0.0) -> tuple[float, float]:
    """The scaled inverse chi-square prior of variances: its scale and its degrees of freedom (Smyth 2004, 6.2).

    Of fewer than three variances nothing is learned: degrees of freedom 0. They are infinite where the variances differ
    by no more than chance.

    Args:
        caution: standard errors by which the variances are taken to differ more than they were found to. Few variances
            that happen to be alike would else lend each other too much.
    """
    if len(variances) < 3:
        return 1.0, 0.0
    half = np.array(freedoms, dtype=np.float64) / 2
    e = unbiased_log(variances, freedoms)
    widened = 1.0 + caution * math.sqrt(2.0 / (len(e) - 1))
    excess = float(widened * e.var(ddof=1) - special.polygamma(1, half).mean())
    if excess <= special.polygamma(1, 1e6):
        return math.exp(e.mean()), math.inf
    # trigamma falls from infinity to 0, so the root is bracketed: trigamma(1e-4) = 1e8
    prior = float(optimize.brentq(lambda x: special.polygamma(1, x) - min(excess, 1e7), 1e-4, 1e6))
    return math.exp(e.mean() + special.digamma(prior) - math.log(prior)), 2 * prior


def unbiased_log(variances: Sequence[float], freedoms: Sequence[float]) -> np.ndarray:
    """The logarithm of each variance, (N,), less what its degrees of freedom make of its expectation."""
    half = np.array(freedoms, dtype=np.float64) / 2
    return np.log(variances) - special.digamma(half) + np.log(half)


def excess(logs: np.ndarray) -> np.ndarray:
    """How much more each row varies than the rows do as a rule, (R,) factors of at least 1.

    A row that is unlike the others, an unsteady training say, is so in most of its metrics; their mean tells it where
    one variance of few degrees of freedom does not.

    Args:
        logs: (R, M) logarithms of the variances of M metrics, NaN where there is none.
    """
    unlike = logs - np.nanmedian(logs, axis=0)
    return np.exp(np.maximum(np.nanmean(unlike, axis=1), 0.0))


def posterior_variance(variance: float, freedom: float, prior: float, weight: float) -> float:
    """A variance moderated by `prior_variance`: the mean of both, weighted by their degrees of freedom (3.1)."""
    return prior if math.isinf(weight) else (weight * prior + freedom * variance) / (weight + freedom)
