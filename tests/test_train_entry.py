from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from sarx.config.compose import override
from sarx.config.schema import TrainConfig, as_dict, build
from sarx.data import fingerprint
from sarx.study.design import make_arms
from sarx.study.identity import training_code, trial_id
from sarx.study.ledger import Ledger, pack_metrics, pack_parameters
from sarx.study.load import load_study
from sarx.study.opening import opened_payload
from sarx.study.provenance import write_config
from sarx.study.storage import open_folder
from sarx.train import main
from sarx.training import single
from sarx.training.report import train_and_report

TINY = [
    "data.num_train=32",
    "data.num_eval=50",
    "training.steps=4",
    "training.eval_every=2",
    "training.batch_size=4",
]


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
    small = [*TINY, "model=fcn_test_efficientnet", "regularizer=sar", "--report"]
    done = train(tmp_path, *small)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert "val/miou" in lines[0]
    assert "test/miou" not in lines[0]
    assert "test/miou" in lines[1]
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    again = train(tmp_path, *small)
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


# -------------------------------------------------------------------- a trial of a study again

STUDY = """\
# Does it help?
study: small
base: [data=digit_scenes, model=fcn_test_efficientnet, data.num_train=32, data.num_eval=50, training.steps=4,
       training.eval_every=2, training.batch_size=4]
ablation: {reference: sar, arms: {sar: {}, plain: {regularizer: none}}}
search: {parameters: {optim.lr: {low: 0.001, high: 0.1, log: true}}, trials_per_arm: 4}
"""
LR = 0.012345678901234567


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a storage with a study whose one trial was trained to its end, and the trial's identity."""
    root = tmp_path_factory.mktemp("storage")
    (root / "s.yaml").write_text(STUDY)
    loaded, source = load_study(root / "s.yaml")
    arms = make_arms(loaded, source)
    values = override(as_dict(arms[0].config), {"optim.lr": LR, "seed": 7, "role": "confirm"})
    config = build(values)
    code = training_code()
    name = trial_id(config, data_fingerprint=fingerprint(config.data), code=code.digest)
    folder = open_folder(root, "small")
    write_config(folder.trial(name), as_dict(config), name, 7)
    common = {"trial_id": name, "phase": "confirm"}
    torch.set_num_threads(1)
    with Ledger(folder.ledger) as ledger:
        payload = opened_payload(loaded, arms, code, [])
        ledger.append("study_opened", payload=json.dumps(payload))
        claim = {"arm": "sar", "level": "", "index": 0, "seed": 7}
        claim |= {
            "parameters": pack_parameters({"optim.lr": LR}),
            "payload": json.dumps({"code": code.digest}),
        }
        ledger.append("claimed", **claim, **common)
        ledger.append("claimed", **claim | {"trial_id": "no-config", "phase": "confirm", "index": 1})
        ledger.append("trial_started", attempt=1, **common)
        for result in train_and_report(config):
            kind = "trial_finished" if result.last else "epoch"
            metrics = pack_metrics(result.metrics)
            ledger.append(kind, attempt=1, epoch=result.epoch, step=result.step, metrics=metrics, **common)
    return root, name


def files(root):
    """Return every file of the study with its content."""
    return {path: path.read_bytes() for path in (root / "small").rglob("*") if path.is_file()}


def test_a_trial_runs_again_outside_of_its_study_bit_for_bit(study, tmp_path):
    root, name = study
    before = files(root)
    done = train(root, "--trial", f"small/{name[:6]}")
    assert done.returncode == 0, done.stderr
    assert f"study's trial  small/{name}\nthis run       {name}: the same, for nothing" in done.stdout
    assert "test/miou" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("equal bit for bit: ")]
    assert line.endswith("metrics after epoch 2 are those of the study")
    assert files(root) == before
    assert (root / "train" / "trials" / name).is_dir()


def test_a_changed_trial_is_another(study):
    root, name = study
    changed = ["regularizer=none", "optim.lr=0.02", "optim.weight_decay=0.0001"]
    done = train(root, "--trial", f"small/{name}", *changed)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert f"study's trial  small/{name}" in lines
    (own,) = [line for line in lines if line.startswith("this run ")]
    assert own.endswith(": another, for")
    at = lines.index(own) + 1
    assert lines[at : at + 2] == ["  regularizer.name sar -> none", f"  optim.lr {LR} -> 0.02"]
    assert lines[at + 2].startswith("trial ")  # weight_decay was that already
    at = next(i for i, line in enumerate(lines) if " differ (study's, this run's):" in line)
    assert any(line.startswith("  val/miou  0.") for line in lines[at:])
    assert not any(line.startswith("  time/") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trial", "small"], "'small': expected STUDY/TRIAL_ID"),
        (["--trial", "smal/x"], "no study is called 'smal' in"),
        (["--trial", "small/zzz"], "zzz: no trial of this study is called so"),
        (["--trial", "small/{name}", "optim.lrr=1"], "optim.lrr: unknown key; did you mean 'optim.lr'?"),
        (["--trial", "small/{name}", "--threads", "0"], "--threads: 0 is outside"),
        (["--plugin", "gone"], "--plugin: there is no module 'gone'"),
    ],
)
def test_mistakes_about_a_trial(study, arguments, message, capsys):
    root, name = study
    texts = [text.replace("{name}", name) for text in arguments]
    assert main([*texts, "--storage", str(root)]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_options_that_were_not_kept_are_rebuilt_if_they_give_the_identity(study, tmp_path, capsys):
    root, name = study
    shutil.copytree(root / "small", tmp_path / "small")
    kept = single.recorded_trial(tmp_path, f"small/{name}")
    capsys.readouterr()
    (tmp_path / "small" / "trials" / name / "config.yaml").unlink()
    assert single.recorded_trial(tmp_path, f"small/{name}").config == kept.config
    said = "config.yaml is missing; rebuilt from the ledger, and of the same identity"
    assert capsys.readouterr().out.startswith(said)
    assert main(["--trial", "small/no-config", "--storage", str(root)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(
        "error: no-config: has no config.yaml, as trials of an older sarx, and the ledger"
    )
    assert len(errors.splitlines()) == 1


def test_a_trial_of_a_plug_in_asks_for_it(study, tmp_path, capsys):
    root, name = study
    shutil.copytree(root / "small", tmp_path / "small")
    with Ledger(tmp_path / "small" / "ledger") as ledger:
        payload = json.loads(ledger.events[0]["payload"])
        payload["code"]["files"]["plugin/my_lab.parts"] = "0"
        ledger.append("study_opened", payload=json.dumps(payload))
    assert main(["--trial", f"small/{name}", "--storage", str(tmp_path)]) == 2
    assert "the study used plug-ins; give --plugin my_lab.parts" in capsys.readouterr().err


def test_why_an_identity_differs():
    config = TrainConfig()
    recorded = single.Recorded("s", "old", config, {"training/loop.py": "0"}, 2, 0, {})
    lines = single.compare_identity(recorded, "new", config, 1)
    assert lines[:2] == ["study's trial  s/old", "this run       new: another, for"]
    assert "  training/loop.py changed" in lines
    assert "  threads 2 -> 1" in lines
    same = single.Recorded("s", "old", config, training_code().files, 1, 0, {})
    (reason,) = single.compare_identity(same, "new", config, 1)[2:]
    assert reason == "  neither code nor options: its config.yaml was edited, or the data are others"


def test_metrics_are_compared_by_their_bits():
    recorded = {"a": 0.1, "b": float("nan"), "c": -0.0, "time/x": 1.0}

    def compared(found, epoch=1):
        trial = single.Recorded("s", "t", TrainConfig(), {}, 1, epoch, recorded)
        return single.compare_metrics(trial, found)

    assert compared({1: recorded | {"time/x": 2.0}}) == [
        "equal bit for bit: 3 metrics after epoch 1 are those of the study"
    ]
    lines = compared({1: {"a": 0.1 + 1e-18, "b": 0.5, "c": 0.0, "d": 1.0}})
    assert lines[0] == "3 of 4 metrics after epoch 1 differ (study's, this run's):"
    assert lines[1:] == ["  b  nan  0.5", "  c  -0.0  0.0", "  d  -  1.0"]
    assert compared({2: recorded}) == [
        "epoch 1, the study's last of this trial, did not run here: not compared"
    ]
    assert compared({}, epoch=0) == ["the study has no result of this trial to compare with"]
