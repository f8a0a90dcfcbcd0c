"""Settings for all tests: one thread, no network, and this folder's helpers importable."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

for folder in ("harness", "features", "report"):
    sys.path.insert(0, str(Path(__file__).parent / folder))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root():
    """The folder of real data sets, from GENBENCH_DATA_ROOT; tests that need it are skipped without it."""
    root = os.environ.get("GENBENCH_DATA_ROOT")
    if not root or not Path(root).is_dir():
        pytest.skip("GENBENCH_DATA_ROOT names no folder of data sets")
    return Path(root)


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory):
    """A file of random InceptionV3 weights that genbench and its peers can all load."""
    from inception_weights import FILE_NAME, write_weights

    return write_weights(tmp_path_factory.mktemp("inception") / FILE_NAME)
