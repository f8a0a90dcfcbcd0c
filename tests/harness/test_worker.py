"""What a worker says of errors that are none of genbench's own."""

import pytest
import torch

from genbench.run.task import describe


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nmore"),
    ],
)
def test_out_of_memory_says_what_to_make_smaller(error):
    said = describe(error)
    assert said.startswith("out of memory (") and "sample_batch_size" in said and "more" not in said


def test_other_errors_are_named_with_their_class():
    assert describe(ValueError("no luck")) == "ValueError: no luck"
