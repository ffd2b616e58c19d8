"""TensorBoard files with TensorBoard's own messages: scalars, hyperparameters and pictures; no torch.

TensorBoard's own file writer starts a thread for each file, holds events back for up to two minutes, and
computes the checksum of every byte in Python. Here each event is in the file when its call returns, so that
a board can be watched while it grows and a driver may leave at any moment; the file format is the same.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb, hparams_pb

_NUMBERS = itertools.count()
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_BLOCK = 1024


class Board:
    """The event file of one run. Metric names are written as they are.

    Args:
        folder: Folder of the run; its path below the study's TensorBoard folder is the run's name.
    """

    def __init__(self, folder: Path) -> None:
        """Open a new event file; earlier ones of the folder stay."""
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self._file = (folder / name).open("wb", buffering=0)
        source = SourceMetadata(writer="sarx.tensorboard")
        self._record(Event(wall_time=now, file_version="brain.Event:2", source_metadata=source))

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

    def flush(self) -> None:
        """Force the file to disk. Only a machine that goes down needs it: no event waits in this process."""
        if not self._file.closed:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()

    def _write(self, summary: Summary, step: int, wall_time: float) -> None:
        self._record(Event(wall_time=wall_time, step=step, summary=summary))

    def _record(self, event: Event) -> None:
        """Append one event at once: length, its checksum, the event, its checksum."""
        data = event.SerializeToString()
        head = struct.pack("<Q", len(data))
        left = memoryview(b"".join((head, masked_crc(head), data, masked_crc(data))))
        while left:
            left = left[self._file.write(left) :]


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


def masked_crc(data: bytes) -> bytes:
    """Return the checksum of a record: CRC-32C, rotated and shifted as TensorFlow's record format wants it.

    The checksum is linear, so every byte of a block has its own table of what it adds, by its place.
    """
    table, rows = _tables()
    state = 0xFFFFFFFF
    for start in range(0, len(data), _BLOCK):
        block = np.frombuffer(data[start : start + _BLOCK], np.uint8).astype(np.intp)
        size = len(block)
        for i in range(min(4, size)):
            block[i] ^= (state >> (8 * i)) & 0xFF
        state = int(np.bitwise_xor.reduce(table[rows[-size:] + block])) ^ (state >> (8 * size))
    state ^= 0xFFFFFFFF
    return struct.pack("<I", ((state >> 15 | state << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Return what a byte adds to the checksum, by place in the block and value, and where places begin."""
    last = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        last = np.where(last & 1, (last >> 1) ^ np.uint32(_POLYNOMIAL), last >> 1).astype(np.uint32)
    places = [last]
    for _ in range(_BLOCK - 1):
        places.append((places[-1] >> np.uint32(8)) ^ last[places[-1] & 0xFF])
    return np.concatenate(places[::-1]), np.arange(_BLOCK) * 256


def _plain(value: Any) -> bool | float | str:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return str(value)
