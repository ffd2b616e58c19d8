"""Trainings on one rank or several of a process group, importable in a spawned process.

Data are 24 scenes of which two of three lose most labels, so that ranks and micro-batches hold very different
numbers of valid pixels; the model has GroupNorm in place of BatchNorm2d, which depends on no other sample.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn

from sarx.config.compose import compose
from sarx.data import Split
from sarx.training import distributed, loop, report, step
from sarx.training.loop import EpochResult, train

STEPS = 20
TINY = {
    "model": "fcn_test_efficientnet",
    "data.num_train": 24,
    "training.steps": STEPS,
    "training.eval_every": 10,
    "training.batch_size": 6,
    "optim": "sgd",
    "optim.lr": 0.02,
    "optim.weight_decay": 0.0005,
    "regularizer.update_confidence": 0.1,
}
"""The gate opens within the run: see test_two_ranks."""

LOADERS = {module: module.load_split for module in (loop, report)}
BUILD = step.build_model
Record = dict[str, Any]


def uneven(config: Any, seed: int, split: str) -> Split:
    """Training scenes with many ignored pixels; 13 scenes of the others."""
    whole = LOADERS[loop](config, seed, split)
    if split != "train":
        return Split(whole.images[:13], whole.labels[:13])
    labels = np.array(whole.labels)
    if labels.ndim == 3:
        labels[::3, 4:] = 255
        labels[1::3, :, 20:] = 255
    return Split(whole.images, labels)


def without_batch_norm(*arguments: Any, **options: Any) -> nn.Module:
    """Build the model and replace each batch normalisation, keeping the activation that timm puts in it."""
    model = BUILD(*arguments, **options)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
                act = getattr(child, "act", nn.Identity())
                setattr(parent, name, nn.Sequential(nn.GroupNorm(1, child.num_features), act))
    return model


@contextlib.contextmanager
def prepared(*, batch_norm: bool = False, evaluation_batch: int = 4) -> Iterator[None]:
    """Train with one thread on the uneven data, evaluate 13 scenes in batches of 4; all is restored after."""
    from sarx.training import batches

    before, threads = batches.BATCH, torch.get_num_threads()
    torch.set_num_threads(1)
    for module in LOADERS:
        module.load_split = uneven
    step.build_model = BUILD if batch_norm else without_batch_norm
    batches.BATCH = evaluation_batch
    try:
        yield
    finally:
        for module, original in LOADERS.items():
            module.load_split = original
        step.build_model = BUILD
        batches.BATCH = before
        torch.set_num_threads(threads)


def config(**overrides: Any) -> Any:
    """Return a small configuration; ``__`` stands for a dot."""
    return compose({**TINY, **{key.replace("__", "."): value for key, value in overrides.items()}})


def record(result: EpochResult) -> Record:
    """Return what a result holds, as it stands."""
    state = {key: value.clone() for key, value in result.module.state_dict().items()}
    return {
        "epoch": result.epoch,
        "last": result.last,
        "diverged": result.diverged,
        "duration_s": result.duration_s,
        "metrics": dict(result.metrics),
        "state": state,
    }


def run(
    overrides: Record, *, batch_norm: bool = False, compiler: str = "inductor", **options: Any
) -> list[Record]:
    """Train and return the records of all results."""
    with prepared(batch_norm=batch_norm), pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "COMPILER", compiler)
        return [record(result) for result in train(config(**overrides), **options)]


def work(rank: int, ranks: int, folder: str, jobs: dict[str, tuple[Callable[..., Any], Any]]) -> None:
    """Do every job on one rank, with a global generator of its own, and save what they return."""
    torch.set_num_threads(1)
    distributed.POLL_S = 0.05  # a report takes longer
    store = (Path(folder) / "store").as_uri()
    wait = timedelta(seconds=100)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks, timeout=wait)
    found: dict[str, Any] = {}
    began = time.monotonic()
    for name, (job, arguments) in jobs.items():
        torch.manual_seed(100 + rank)
        try:
            found[name] = job(**arguments)
        except (RuntimeError, ValueError, TypeError, AttributeError, OSError) as error:
            found[name] = {"error": f"{type(error).__name__}: {error}", "text": traceback.format_exc()}
        dist.barrier()
        if rank == 0:
            print(f"{name}: {time.monotonic() - began:.1f} s, CPU {time.process_time():.1f} s", flush=True)
    torch.save(found, Path(folder) / f"rank{rank}.part")
    dist.barrier()
    (Path(folder) / f"rank{rank}.part").rename(Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # torch 2.15: at the interpreter's end, gloo's threads may abort a process that used DDP


def on_ranks(
    folder: Path,
    jobs: dict[str, tuple[Callable[..., Any], Any]],
    prepare: Callable[[Path], None] | None = None,
    ranks: int = 2,
) -> list[Record]:
    """Do all jobs on every rank of one group; return what they returned, per rank.

    Done once, also where several workers of xdist ask for the same folder. ``prepare`` fills it before.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "rank0.pt").exists():
            if prepare is not None:
                prepare(folder)
            folder.mkdir(exist_ok=True)
            (folder / "store").unlink(missing_ok=True)  # of an attempt that failed
            multiprocessing.spawn(work, args=(ranks, str(folder), jobs), nprocs=ranks)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]


def common_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a folder that all workers of xdist share."""
    root = factory.getbasetemp()
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name


def numbers(records: list[Record]) -> list[dict[str, float]]:
    """Return the metrics without times."""
    return [
        {key: value for key, value in item["metrics"].items() if not key.startswith("time/")}
        for item in records
    ]
