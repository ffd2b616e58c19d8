"""The data of a training as its model is to see them."""

from __future__ import annotations

from dataclasses import replace

from sarx.config.schema import TrainConfig
from sarx.data import DataSet, describe
from sarx.models.pretrained import model_mean_std


def data_of(config: TrainConfig) -> DataSet:
    """Describe the data of a training, normalised as published weights want it where the model has such."""
    data = describe(config.data, config.seed)
    wanted = model_mean_std(config.model)
    if wanted is None or len(wanted[0]) != data.in_channels:
        return data
    return replace(data, mean=wanted[0], std=wanted[1])
