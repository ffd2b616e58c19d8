from __future__ import annotations

import io
import random
import subprocess
import sys
import threading

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.plugins.hparams import plugin_data_pb2

from sarx.tensorboard import Board, declare, masked_crc


def png(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_names_and_values_are_written_as_they_are(tmp_path):
    board = Board(tmp_path / "run")
    board.hyperparameters({"optim.lr": 0.1, "arm": "sar", "flag": True, "none": None}, "group", 1.0)
    board.scalars(10, {"val/miou": 0.25, "train/loss": float("nan")}, 2.0)
    board.image("predictions/x", png(6, 4), 10, 3.0)
    board.ended(True, 4.0)
    read = EventAccumulator(str(tmp_path / "run"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"val/miou", "train/loss"}
    assert read.Scalars("val/miou")[0].value == pytest.approx(0.25)
    image = read.Images("predictions/x")[0]
    assert (image.width, image.height) == (6, 4)
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.group_name == "group"
    assert start.hparams["optim.lr"].number_value == pytest.approx(0.1)
    assert start.hparams["arm"].string_value == "sar"
    assert start.hparams["none"].string_value == "None"
    assert "_hparams_/session_end_info" in read.summary_metadata


def test_columns_are_declared_for_the_hparams_tab(tmp_path):
    declare(tmp_path, ["val/miou", "test/miou"], ["optim.lr", "arm"], 1.0)
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    content = read.SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert [info.name for info in experiment.hparam_infos] == ["optim.lr", "arm"]
    assert [info.name.tag for info in experiment.metric_infos] == ["val/miou", "test/miou"]


def scalars(folder, tag):
    read = EventAccumulator(str(folder))
    read.Reload()
    return [event.value for event in read.Scalars(tag)]


def test_a_board_can_be_read_while_it_grows_and_needs_no_thread(tmp_path):
    before = threading.active_count()
    board = Board(tmp_path)
    for step in range(3):
        board.scalars(step, {"val/miou": float(step)}, 1.0)
        assert scalars(tmp_path, "val/miou") == [float(i) for i in range(step + 1)]
    assert threading.active_count() == before
    board.flush()
    board.close()
    board.close()
    board.flush()


def test_boards_of_one_folder_have_files_of_their_own(tmp_path):
    for value in (1.0, 2.0):
        board = Board(tmp_path)
        board.scalars(int(value), {"x": value}, value)
        board.ended(True, value)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2


def test_nothing_is_lost_when_the_process_leaves_at_once(tmp_path):
    code = (
        "import os, pathlib, sys\n"
        "from sarx.tensorboard import Board\n"
        "board = Board(pathlib.Path(sys.argv[1]))\n"
        "for step in range(200):\n"
        "    board.scalars(step, {'val/miou': 0.5}, 1.0)\n"
        "os._exit(143)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 143
    assert len(scalars(tmp_path, "val/miou")) == 200


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 8, 1023, 1024, 1025, 1027, 1028, 5000])
def test_checksums_are_those_of_tensorboard(size):
    for data in (bytes(size), random.Random(size).randbytes(size)):
        assert masked_crc(data) == pywrap_tensorflow.masked_crc32c(data).to_bytes(4, "little")
