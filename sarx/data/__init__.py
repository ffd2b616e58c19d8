"""Data sets as numpy arrays. ``DATASETS`` is the registry: name -> module that is a ``DataSource``."""

from __future__ import annotations

from sarx.data import digit_scenes, digits_lt
from sarx.data.dataset import DataSet, DataSource, LongTailConfig, Split, class_counts, split_names
from sarx.data.scores import score_names

DATASETS: dict[str, DataSource] = {"digit_scenes": digit_scenes, "digits_lt": digits_lt}


def describe(config: LongTailConfig, seed: int) -> DataSet:
    """Describe the data that a trial with this seed trains on; reads no image."""
    return DATASETS[config.name].describe(config, seed)


def load_split(config: LongTailConfig, seed: int, split: str) -> Split:
    """Return the split ``train``, ``val`` or ``test``; no other split is read or made."""
    return DATASETS[config.name].load_split(config, seed, split)


def fingerprint(config: LongTailConfig) -> str:
    """Identify the content of the data set in under 1 ms, from stated constants."""
    return DATASETS[config.name].fingerprint(config)


__all__ = [
    "DATASETS",
    "DataSet",
    "DataSource",
    "Split",
    "class_counts",
    "describe",
    "fingerprint",
    "load_split",
    "score_names",
    "split_names",
]
