from __future__ import annotations

import io

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from sarx.tensorboard import Board, declare


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
