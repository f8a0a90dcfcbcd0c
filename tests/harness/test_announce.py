"""What a run says before it starts."""

from pathlib import Path

import pytest
import torch

from genbench.run.announce import announce
from genbench.suite import load_suite


@pytest.mark.parametrize(
    ("device", "dataset", "told"), [("cpu", None, True), ("cpu", "digits", False), ("cuda", None, False)]
)
def test_what_a_suite_takes_is_said_of_its_own_dataset_on_a_cpu(capsys, device, dataset, told):
    suite = load_suite("cifar10")
    announce(suite, suite.rows()[:2], torch.device(device), Path("runs/cifar10"), dataset)
    said = capsys.readouterr().err
    assert f"suite 'cifar10', 2 rows, device {device}, folder runs/cifar10" in said
    assert ("No GPU is used. " in said) is told
