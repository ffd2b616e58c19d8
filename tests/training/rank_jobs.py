"""What the ranks of the tests run, in one process group: see the fixture ``ranks``."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_runs import Record, config, prepared, record, run
from torch import nn

from sarx.config.schema import GROUPS
from sarx.losses import build_loss
from sarx.training import report
from sarx.training.distributed import is_main
from sarx.training.loop import train

SHORT: Record = {"training__steps": 2, "training__eval_every": 1}
DOUBLE: Record = {"training__precision": "float64", **SHORT}
ONE_EPOCH: Record = {**DOUBLE, "training__steps": 1}
LONG: Record = {"training__precision": "float64"}
HALVED = {"training__accumulation": 2}

SINGLE: Record = {
    **SHORT,
    "data": "digits_lt",
    "model": "pool_test_efficientnet",
    "model.feature_dim": 16,
    "training__batch_size": 3,
}
"""Of which rank 1 gets a single sample, too few for a BatchNorm1d."""

CASES: dict[str, Record] = {
    "float64": LONG,
    "float64, accumulation 2, 7 samples": {**LONG, **HALVED, "training__batch_size": 7},
    "float32, accumulation 2": {**HALVED, "training__steps": 20},
    "logit_adjusted, clipped": {**DOUBLE, "loss": "logit_adjusted", "training__grad_clip": 0.5},
    "class_balanced": {**DOUBLE, **HALVED, "loss": "class_balanced"},
    "ohem": {**DOUBLE, "loss": "ohem", "loss__min_kept_share": 0.0, "loss__threshold": 0.3},
    "auxiliary": {**DOUBLE, **HALVED, "model": "ocr_test_convnext", "model.feature_dim": 16},
    "classification": {
        **DOUBLE,
        **HALVED,
        "data": "digits_lt",
        "model": "pool_test_efficientnet",
    },
}
"""What runs on two ranks and, with one micro-batch, on one."""


def flip(path: Path) -> None:
    """Damage a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def without_the_file(folder: Path) -> list[Record]:
    """Continue where rank 1 does not find what rank 0 has chosen, as without shared storage."""
    with pytest.MonkeyPatch.context() as patch:
        if not is_main():
            patch.setattr("sarx.training.saving.Path", lambda name: folder / "nowhere" / str(name)[1:])
        return run(DOUBLE, resume=[folder])


def fail_to_write(folder: Path, overrides: Record) -> None:
    """Train into a folder that is a file."""
    run({**ONE_EPOCH, **overrides}, folder=folder / "file")


def report_run(folder: Path, broken: bool) -> list[Record]:
    """Train with a report, which fails on rank 0 if ``broken``."""
    original = report.report_metrics
    if broken:
        report.report_metrics = lambda *_: (_ for _ in ()).throw(OSError("no report today"))
    try:
        with prepared():
            return [
                record(r) for r in report.train_and_report(config(**ONE_EPOCH, role="confirm"), folder=folder)
            ]
    finally:
        report.report_metrics = original


def grow(count: int) -> list[tuple[int, int]]:
    """Train over and over; return (tensors alive, kB resident) after the 5th and each 5th further one."""
    found = []
    for seed in range(count):
        run({"training__steps": 1, "training__eval_every": 1, "seed": seed})
        if seed % 5 != 4:
            continue
        gc.collect()
        alive = sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())
        found.append((alive, resident()))
    return found


def resident() -> int:
    """Return the resident memory of this process in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


class OneOfTwo(nn.Module):
    """A plug-in's loss with a parameter that no step uses."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.spare = nn.Parameter(torch.zeros(3))

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.inner(logits, labels)
        return loss


def with_an_unused_parameter() -> list[Record]:
    """Train with a loss that leaves a parameter without a gradient, and is not told of micro-batches."""
    from sarx.training import step

    original = step.build_loss
    step.build_loss = lambda *given, **options: OneOfTwo(original(*given, **options))
    try:
        return run({**ONE_EPOCH, "training__accumulation": 2})
    finally:
        step.build_loss = original


def loss_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (4, 5, 6, 6) and labels (4, 6, 6) of two ranks; the second has few valid pixels."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 5, (4, 6, 6), generator=generator)
    labels[2:, 1:] = 255
    return torch.randn(4, 5, 6, 6, generator=generator, dtype=torch.float64), labels


def stand_alone(name: str, part: slice) -> Record:
    """Call a loss on its own, as in anybody's loop: value, gradient, and the value without gradient."""
    keep_all = {"threshold": 1.0} if name == "ohem" else {}
    loss = build_loss(GROUPS["loss"][name](**keep_all), class_counts=torch.tensor([9, 7, 5, 3, 1])).double()
    logits, labels = loss_inputs()
    mine = logits[part].requires_grad_()
    value = loss(mine, labels[part])
    value.backward()
    alone = loss(mine.detach(), labels[part]) if part.start == 0 else None  # on one rank: waits for nobody
    return {"value": value.detach(), "gradient": mine.grad, "alone": alone}


def losses_of_a_rank() -> dict[str, Record]:
    """Call every loss on this rank's half."""
    part = slice(0, 2) if is_main() else slice(2, 4)
    return {name: stand_alone(name, part) for name in GROUPS["loss"]}


def prepare(folder: Path) -> None:
    """Make the checkpoints of a run on one rank, whole and damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "file").write_text("")
    with prepared():
        list(train(config(**DOUBLE), folder=folder / "damaged"))
    shutil.copytree(folder / "damaged", folder / "finished")
    flip(folder / "damaged" / "epoch-00002.pt")


def all_jobs(folder: Path) -> dict[str, tuple[Callable[..., Any], Any]]:
    """Return what the ranks do, in order."""
    jobs: dict[str, tuple[Callable[..., Any], Any]] = {
        case: (run, {"overrides": overrides}) for case, overrides in CASES.items()
    }
    threaded = {"training__async_checkpoint": True}
    return {
        **jobs,
        "batch norm": (run, {"overrides": {**SHORT, "model__dropout": 0.5}, "batch_norm": True}),
        "too few samples": (run, {"overrides": {**HALVED, "training__batch_size": 3}}),
        "one sample": (run, {"overrides": SINGLE, "batch_norm": True}),
        "losses": (losses_of_a_rank, {}),
        "whole": (run, {"overrides": DOUBLE, "folder": folder / "two"}),
        "damaged": (run, {"overrides": DOUBLE, "resume": [folder / "damaged"]}),
        "again": (run, {"overrides": DOUBLE, "resume": [folder / "finished"], "replay_from": 1}),
        "apart": (without_the_file, {"folder": folder / "finished"}),
        "unwritable": (fail_to_write, {"folder": folder, "overrides": {}}),
        "unwritable, thread": (fail_to_write, {"folder": folder, "overrides": threaded}),
        "report": (report_run, {"folder": folder / "report", "broken": False}),
        "broken report": (report_run, {"folder": folder / "broken", "broken": True}),
        "unused": (with_an_unused_parameter, {}),
        "float16": (run, {"overrides": {**ONE_EPOCH, "training__precision": "float16"}}),
        "memory": (grow, {"count": 20}),
    }
