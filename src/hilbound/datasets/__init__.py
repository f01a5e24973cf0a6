"""Data sets: toys with known densities, images from their official files, and the user's own."""

from hilbound.datasets.base import Dataset, Standardization, data_root
from hilbound.datasets.catalogue import DATASETS, load

__all__ = ["DATASETS", "Dataset", "Standardization", "data_root", "load"]
