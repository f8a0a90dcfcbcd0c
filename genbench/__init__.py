"""genbench: evaluation and benchmarking of image generative models."""

__version__ = "0.1.0"
