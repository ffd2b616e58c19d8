"""TensorBoard files through TensorBoard's own writer: scalars, hyperparameters and pictures; no torch."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb, hparams_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class Board:
    """The event file of one run. Metric names are written as they are.

    Args:
        folder: Folder of the run; its path below the study's TensorBoard folder is the run's name.
    """

    def __init__(self, folder: Path) -> None:
        """Open a new event file; earlier ones of the folder stay."""
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder))

    def scalars(self, step: int, metrics: Mapping[str, float], wall_time: float) -> None:
        """Write scalars of one step; non-finite values are written as they are."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(Summary(value=values), step, wall_time)

    def image(self, tag: str, png: bytes, step: int, wall_time: float) -> None:
        """Write a picture that is PNG already."""
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=3)
        self._write(Summary(value=[Summary.Value(tag=tag, image=image)]), step, wall_time)

    def hyperparameters(self, values: Mapping[str, Any], group: str, wall_time: float) -> None:
        """Say what this run was started with, for the HParams tab."""
        plain = {key: _plain(value) for key, value in values.items()}
        self._write(hparams_pb(plain, trial_id=group, start_time_secs=wall_time), 0, wall_time)

    def ended(self, ok: bool, wall_time: float) -> None:
        """Say that the run has ended, and close the file."""
        status = api_pb2.STATUS_SUCCESS if ok else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=wall_time)
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
        self._write(Summary(value=[value]), 0, wall_time)
        self.close()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()

    def _write(self, summary: Summary, step: int, wall_time: float) -> None:
        self._writer.add_event(Event(wall_time=wall_time, step=step, summary=summary))


def declare(folder: Path, metrics: list[str], parameters: list[str], wall_time: float) -> None:
    """Declare the columns of the HParams tab for all runs below a folder.

    Args:
        folder: The study's TensorBoard folder.
        metrics: Metric names that become columns.
        parameters: Names of the hyperparameters that become columns.
        wall_time: Seconds since the epoch.
    """
    summary = hparams_config_pb(
        hparams=[HParam(name) for name in parameters],
        metrics=[Metric(name) for name in metrics],
        time_created_secs=wall_time,
    )
    board = Board(folder)
    board._write(summary, 0, wall_time)
    board.close()


def _plain(value: Any) -> bool | float | str:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return str(value)
