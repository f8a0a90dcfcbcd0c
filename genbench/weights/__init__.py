"""The standard weights: a catalogue with sizes, hashes and licences, and the folder that holds checked copies.

`locate` is what extractors and metrics ask: it gives a file whose hash was checked, downloads it once where there is
a network, and otherwise says which file to put where. `genbench.weights.tensors` fits it to a network.
"""

from __future__ import annotations

from genbench.weights.catalogue import WeightsEntry, by_url, entries, entry
from genbench.weights.locate import LocatedWeights, locate
from genbench.weights.store import Condition, State, add, state, states, store_folder

__all__ = [
    "Condition",
    "LocatedWeights",
    "State",
    "WeightsEntry",
    "add",
    "by_url",
    "entries",
    "entry",
    "locate",
    "state",
    "states",
    "store_folder",
]
