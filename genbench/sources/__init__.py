"""Images from wherever people have them: folders, archives, arrays, tables, datasets and plain Python."""

from genbench.sources.base import ImageSource, Observations, OnError, SourceImage
from genbench.sources.open import open_source
from genbench.sources.pairs import Pairing, match_pairs, pair_names
from genbench.sources.statistics import StatisticsSource, read_statistics, write_statistics

__all__ = [
    "ImageSource",
    "Observations",
    "OnError",
    "Pairing",
    "SourceImage",
    "StatisticsSource",
    "match_pairs",
    "open_source",
    "pair_names",
    "read_statistics",
    "write_statistics",
]
