"""What each rank of the distributed contract runs; importable in a spawned process.

Every case is trained on two ranks by ``DistributedDataParallel`` in float64, each rank on its half of the
global batch, with seeds of its own. What it computed goes to ``rank<r>.pt``.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from regularizer_cases import CASES, IGNORED, WIDTH, Parts, batch, fresh, snapshot
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

RANKS, LOCAL, INPUTS, RATE = 2, 12, 6, 0.05
STAGES = ("fresh", "trained")
Record = dict[str, Any]


class Whole(nn.Module):
    """A producer of features, the classifier and the regularizer: what a distributed wrapper wraps."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.producer = nn.Linear(INPUTS, WIDTH)
        self.parts = parts

    def forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the total loss, the regularizer's and its metrics; the task loss is normalised globally."""
        features = self.producer(inputs).relu()
        output = self.parts(features, labels)
        valid, ranks = (labels != IGNORED).sum(), 1
        if dist.is_initialized():
            dist.all_reduce(valid)
            ranks = dist.get_world_size()
        logits = self.parts.classifier(features)
        task = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        return task * ranks / valid.clamp(min=1) + output.loss, output.loss, output.metrics


def global_batches() -> list[tuple[Tensor, Tensor]]:
    """Return the batches of four steps, (24, INPUTS) and (24,); rows of rank 0 come first.

    Uneven numbers of ignored rows and classes that only one rank has; only ignored rows on rank 1; a single
    valid row on rank 0; only ignored rows everywhere.
    """
    batches = [batch(seed, shape=(RANKS * LOCAL, INPUTS), dtype=torch.float64) for seed in range(4)]
    labels = [labels for _, labels in batches]
    labels[0][:LOCAL][labels[0][:LOCAL] == 4] = 1
    labels[0][LOCAL:][labels[0][LOCAL:] == 0] = IGNORED
    labels[0][0], labels[0][-1] = 0, 4
    labels[1][LOCAL:] = IGNORED
    labels[2][1:LOCAL] = IGNORED
    labels[2][0] = 3
    labels[3][:] = IGNORED
    return batches


def build_whole(case: str, state: dict[str, Tensor] | None, seed: int) -> Whole:
    """Build with the global generator at ``seed``, in which ranks differ; the wrapper syncs parameters."""
    torch.manual_seed(seed)
    parts = fresh(case, seed=seed)
    if state is not None:
        parts.load_state_dict(state)
    return Whole(parts).double()


def run_steps(wrapped: nn.Module, whole: nn.Module, part: slice) -> list[Record]:
    """Train on rows ``part`` of every global batch; returns what each step computed."""
    records = []
    for inputs, labels in global_batches():
        for parameter in whole.parameters():
            parameter.grad = None
        total, loss, metrics = wrapped(inputs.detach()[part], labels[part])
        total.backward()
        found = {name: p.grad for name, p in whole.named_parameters() if p.grad is not None}
        record = {"losses": {"loss": loss.detach(), **metrics}, "gradients": found}
        with torch.no_grad():
            for parameter in whole.parameters():
                if parameter.grad is not None:
                    parameter.sub_(RATE * parameter.grad)
        records.append({key: clone(value) for key, value in record.items()} | {"state": snapshot(whole)})
    return records


def clone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy every tensor."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def run_case(case: str, state: dict[str, Tensor] | None, rank: int) -> Record:
    """Train under the wrapper, then with and without converted batch normalisation and no wrapper."""
    part = slice(rank * LOCAL, (rank + 1) * LOCAL)

    def wrapped() -> list[Record]:
        whole = build_whole(case, state, seed=rank)
        return run_steps(DistributedDataParallel(whole, broadcast_buffers=False), whole, part)

    def plain() -> list[Record]:
        whole = build_whole(case, state, seed=0)
        return run_steps(whole, whole, part)

    def converted() -> list[Record]:
        whole = nn.SyncBatchNorm.convert_sync_batchnorm(build_whole(case, state, seed=0))
        return run_steps(whole, whole, part)

    return {
        "buffers": attempt(lambda: dict(build_whole(case, state, seed=rank).named_buffers())),
        "wrapped": attempt(wrapped),
        "plain": attempt(plain),
        "converted": attempt(converted),
    }


def attempt(function: Callable[[], Any]) -> Any:
    """Return what the function returns, or the traceback of an error that all ranks have alike."""
    try:
        return function()
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return traceback.format_exc()


def work(rank: int, folder: str) -> None:
    """Run every case on one rank."""
    torch.set_num_threads(1)
    store = (Path(folder) / "store").as_uri()
    wait = timedelta(seconds=100)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS, timeout=wait)
    states = torch.load(Path(folder) / "trained.pt", weights_only=True)
    results = {}
    for case in CASES:
        for stage in STAGES:
            if stage == "fresh" or case in states:
                state = states[case] if stage == "trained" else None
                results[f"{case} {stage}"] = run_case(case, state, rank)
                dist.barrier()
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # torch 2.15: at the interpreter's end, gloo's threads may abort a process that used DDP
