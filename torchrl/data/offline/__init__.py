"""Offline data: write and read datasets of steps in folders, and read those of Minari. Nothing here collects."""

from torchrl.data.offline.dataset import OfflineDataset, read_dataset, write_dataset
from torchrl.data.offline.minari import MinariEpisodes, read_minari

__all__ = ["MinariEpisodes", "OfflineDataset", "read_dataset", "read_minari", "write_dataset"]
