"""Scoring anybody's images: what ``genbench eval`` and `genbench.evaluate` do."""
