"""Likelihood of discrete images: the pass over a split, and the estimators that models share.

evaluate: a model over a split. importance: the ELBO and importance-weighted bounds. dequantisation: densities of
continuous images as bounds on probabilities of discrete ones. annealed: log Z by annealed importance sampling. ode:
densities of continuous-time flows.
"""

from genbench.likelihood.evaluate import evaluate_likelihood, likelihood_estimators

__all__ = ["evaluate_likelihood", "likelihood_estimators"]
