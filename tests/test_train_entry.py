from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

TINY = ["data.num_train=32", "training.steps=4", "training.eval_every=2", "training.batch_size=4"]


def train(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "sarx.train", *arguments],
        env={**os.environ, "SARX_STORAGE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_training_prints_progress_writes_tensorboard_and_is_not_repeated(tmp_path):
    done = train(tmp_path, *TINY, "regularizer=sar", "--report")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert "val/miou" in lines[0]
    assert "test/miou" not in lines[0]
    assert "test/miou" in lines[1]
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    again = train(tmp_path, *TINY, "regularizer=sar", "--report")
    assert "continues after epoch 2 of 2" in again.stdout
    assert lines[1].split("about")[0] in again.stdout


def test_classification_trains_too(tmp_path):
    done = train(
        tmp_path, *TINY, "data=digits_lt", "model=pool_test_efficientnet", "regularizer=prototype_ema"
    )
    assert done.returncode == 0, done.stderr
    assert "val/mean_accuracy" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optim.lrr=1"], "optim.lrr: unknown key; did you mean 'optim.lr'?"),
        (["regularizer=sarr"], "did you mean 'sar'?"),
        (["model.backbone=lcnet_05"], "did you mean 'lcnet_0"),
        pytest.param(
            ["training.device=cuda"],
            "training.device: no GPU is visible here; use cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
        ),
        (["optim.lr=-1"], "outside the allowed range (0, 10]"),
        (["data=digits_lt"], "model=pool_test_efficientnet"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(tmp_path, arguments, message):
    done = train(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.pt"))
