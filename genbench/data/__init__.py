"""Datasets: the packaged and torchvision sets, and readers for a user's folders, archives and tables of images."""

from genbench.data.base import ImageDataset, SplitName, Splits
from genbench.data.load import load_dataset

__all__ = ["ImageDataset", "SplitName", "Splits", "load_dataset"]
