"""The standard weights: a catalogue with sizes, hashes and licences, and the folder that holds checked copies.

`locate` is what extractors and metrics ask: it gives a file whose hash was checked, downloads it once where a network
is there, and otherwise says which file to put where.
"""

from __future__ import annotations

from genbench.weights.catalogue import WeightsEntry, entries, entry
from genbench.weights.locate import LocatedWeights, locate
from genbench.weights.store import Condition, State, add, state, store_folder, verify

__all__ = [
    "Condition",
    "LocatedWeights",
    "State",
    "WeightsEntry",
    "add",
    "entries",
    "entry",
    "locate",
    "state",
    "store_folder",
    "verify",
]
