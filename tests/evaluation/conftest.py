import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test sees or leaves anything in the user's cache."""
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
