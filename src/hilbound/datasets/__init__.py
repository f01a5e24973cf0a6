"""Data sets: toys with known densities, digits, MNIST, and the user's own tables and images."""

from hilbound.datasets.base import Dataset, Standardization
from hilbound.datasets.catalogue import DATASETS, load
from hilbound.datasets.images import data_root

__all__ = ["DATASETS", "Dataset", "Standardization", "data_root", "load"]
