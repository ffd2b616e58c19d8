"""A synthetic study of the size of a paper's: 9 arms, 2 backbones, 8 search trials, 10 seeds."""

import json
from typing import Any

import numpy as np

from tests.analysis.conftest import PAYLOAD

LEVELS = ("model=fcn_test_efficientnet", "model=fcn_test_convnext")
# arm -> what it sets, mean difference to the reference
ARMS: dict[str, tuple[dict[str, Any], float]] = {
    "sar": ({}, 0.0),
    "no_pull": ({"regularizer.pull_weight": 0.0}, 0.012),
    "no_aux": ({"regularizer.aux_weight": 0.0, "regularizer.gate": "always"}, -0.03),
    "no_ema": ({"regularizer.ema_decay": 0.0}, -0.001),
    "own_classifier": ({"regularizer.anchor_classifier": "separate"}, -0.025),
    "prototypes": ({"regularizer": "prototype_ema"}, -0.028),
    "cross_entropy": ({"regularizer": "none"}, -0.03),
    "logit_adjusted": ({"regularizer": "none", "loss": "logit_adjusted"}, 0.004),
    "class_balanced": ({"regularizer": "none", "loss": "class_balanced"}, -0.004),
}
SPACE = {
    "optim.lr": "0.001 .. 0.03 log",
    "optim.weight_decay": "1e-05 .. 0.1 log",
    "loss.tau": "0.1 .. 10 log",
    "regularizer.anchor_dim": "{32, 128, feature_dim}",
    "regularizer.aux_weight": "0.1 .. 10 log",
    "regularizer.pull_weight": "0.01 .. 1 log",
}
FILE = """\
# Which parts of SAR earn their keep?
study: sar-ablation
base: [data=digit_scenes, regularizer=sar, training=quick]
objective: {metric: val/miou, mode: max}
report: {primary: test/miou, smallest_effect: 0.005}

ablation:
  factors: {model: [fcn_test_efficientnet, fcn_test_convnext]}
  reference: sar
"""
PROVENANCE: dict[str, Any] = {
    "git": {
        "commit": "3f2a91c07be54d20a6c1f0aa1d2b7c9e8f405162",
        "dirty": True,
        "diff_sha256": "9b74c9897bac770ffc029102a200c5de9b74c9897bac770ffc029102a200c5de",
        "diff": "provenance/diff-9b74c989.patch",
        "reason": None,
    },
    "host": "node-17.example",
    "devices": {"cpu": "Xeon 8480", "cpus": 16, "memory_gib": 128.0, "gpus": ["GPU 0: NVIDIA H200"] * 2},
    "os": "Linux-6.1-x86_64",
    "python": "3.11.9",
    "started": "2026-01-31T12:00:00Z",
    "command": "python -m sarx.tune search_spaces/ablation.yaml",
}
VERSIONS = {"python": "3.11.9", "torch": "2.15.0", "ray": "2.60.0", "optuna": "5.0.0", "timm": "1.0.31"}
TRIALS, SEEDS, STEPS = 8, 10, 400


def parameters(arm: str) -> list[str]:
    """Return what an arm tunes."""
    names = ["optim.lr", "optim.weight_decay"]
    if arm == "logit_adjusted":
        return [*names, "loss.tau"]
    if "regularizer" in ARMS[arm][0]:
        return names
    own = [name for name in SPACE if name.startswith("regularizer.") and name not in ARMS[arm][0]]
    return names + own


def plan(**changes: Any) -> dict[str, Any]:
    """Return the payload of the start."""
    rows = [
        {
            "arm": arm,
            "level": level,
            "parameters": parameters(arm),
            "overrides": {"model": level.partition("=")[2], **ARMS[arm][0]},
            "warnings": [],
        }
        for level in LEVELS
        for arm in ARMS
    ]
    return {
        **PAYLOAD,
        "confirm_seeds": [1000 + seed for seed in range(SEEDS)],
        "question": "Which parts of SAR earn their keep?",
        "file": FILE,
        "report": {"primary": "test/miou", "smallest_effect": 0.005, "secondary": ["test/tail_iou"]},
        "arms": rows,
        "trials_per_arm": TRIALS,
        "seeds": SEEDS,
        "steps": STEPS,
        "budget": "",
        "plan": {
            "seed": 0,
            "sampler": "qmc",
            "space": SPACE,
            "base": ["data=digit_scenes", "regularizer=sar", "training=quick"],
            "cpus_per_worker": 1,
            "repeats": 1,
            "scheduler": {"name": "none"},
            "finalists": {"top": 0},
            "max_failures": 2,
        },
        "code": {"digest": "c0de5eed0123456789abcdef", "files": {}, "kept": []},
        "versions": VERSIONS,
        "command": "python -m sarx.tune search_spaces/ablation.yaml",
        "provenance": PROVENANCE,
        **changes,
    }


def write_paper_study(writer: Any, seeds_done: int = SEEDS, searches: int = 99, **changes: Any) -> None:
    """Write a study; of every arm ``seeds_done`` seeds have finished, one diverged and one was retried.

    Args:
        writer: a ``LedgerWriter``.
        seeds_done: confirm seeds that have ended.
        searches: rows whose search has ended; the others have not begun.
        changes: of the payload of the start.
    """
    rng = np.random.default_rng(11)
    payload = plan(**changes)
    writer.code = payload["code"]["digest"]
    writer.add("study_opened", payload=payload)
    for number, (level, arm) in enumerate((level, arm) for level in LEVELS for arm in ARMS):
        if number < searches:
            search(writer, level, arm)
    for level in LEVELS:
        for seed in range(seeds_done):
            common = 0.27 + 0.012 * rng.normal()
            for arm in ARMS:
                confirm(writer, level, arm, seed, common + ARMS[arm][1] + 0.004 * rng.normal())
    if seeds_done == SEEDS:
        writer.add("study_finished", payload={"reason": "all trials have ended"})


def search(writer: Any, level: str, arm: str) -> None:
    """Write the search of one row: every trial ran to the end, the third one won."""
    for index in range(TRIALS):
        dim = [32, 128, "feature_dim"][index % 3]
        values = {name: dim if "dim" in name else index for name in parameters(arm)}
        listed = [{"name": name, "value": json.dumps(value)} for name, value in values.items()]
        where = {"arm": arm, "level": level, "phase": "search", "index": index, "seed": 77 + index}
        trial = f"s-{level[-4:]}-{arm}-{index}"
        writer.add("proposed", **where, trial_id=trial, parameters=listed, **writer.coded())
        writer.add("trial_started", trial_id=trial, attempt=1, phase="search", epoch=0)
        end = {"trial_id": trial, "attempt": 1, "phase": "search", "epoch": 4, "step": STEPS}
        writer.add("trial_finished", **end, duration_s=9.0, metrics={"val/miou": 0.7 + 0.01 * (index == 2)})
    row = {"arm": arm, "level": level, "trial_id": f"s-{level[-4:]}-{arm}-2", "index": 2}
    row["parameters"] = [
        {"name": name, "value": json.dumps("feature_dim" if "dim" in name else 0.0316)}
        for name in parameters(arm)
    ]
    writer.add("selected", **row, metrics={"val/miou": 0.71})


def confirm(writer: Any, level: str, arm: str, seed: int, miou: float) -> None:
    """Write one confirm trial; seed 4 of own_classifier diverged, seed 2 of no_ema took two attempts."""
    trial = f"c-{level[-4:]}-{arm}-{seed}"
    writer.claim(arm, level, seed, trial)
    if (arm, seed, level) == ("own_classifier", 4, LEVELS[0]):
        writer.add("trial_started", trial_id=trial, attempt=1, phase="confirm", epoch=0)
        writer.add(
            "diverged", trial_id=trial, attempt=1, phase="confirm", epoch=1, payload={"reason": "loss is nan"}
        )
        return
    attempt = 1
    if (arm, seed) == ("no_ema", 2):
        writer.add("trial_started", trial_id=trial, attempt=1, phase="confirm", epoch=0)
        reason = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.2 GiB"
        payload = {"kind": "out_of_memory", "reason": reason}
        writer.add("failed", trial_id=trial, attempt=1, phase="confirm", payload=payload)
        attempt = 2
    metrics = {
        "test/miou": miou,
        "test/head_iou": miou + 0.3,
        "test/body_iou": miou + 0.02,
        "test/tail_iou": miou - 0.2 + (0.02 if "balanced" in arm or "adjusted" in arm else 0.0),
        "val/miou": 0.7,
    }
    if arm in ("sar", "no_pull", "no_aux", "no_ema", "own_classifier"):
        metrics |= {"train/gate_open_share": 0.82, "train/first_open_step": 72.0}
    writer.add("trial_started", trial_id=trial, attempt=attempt, phase="confirm", epoch=0)
    end = {"trial_id": trial, "attempt": attempt, "phase": "confirm", "epoch": 4, "step": STEPS}
    writer.add("trial_finished", **end, duration_s=9.0, metrics=metrics)
