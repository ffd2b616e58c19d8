"""What a second rank brings: ``just bench scaling [--rounds N] [--steps N]``.

Samples per second of the real training step (DDP over gloo, SAR on, HRNet-W18-small with an FCN head, 128 px)
at 4 images per rank and one thread per process, in three ways that take turns:

    1 rank            one process
    2 processes       two processes side by side that know nothing of each other: the machine's ceiling
    2 ranks           two processes of one process group, a global batch of 8

The best of the rounds counts for each, since a shared machine only ever makes a step slower. The bar is on
2 ranks over 2 processes. Ranks wait for each other three times per step, so beside other work on the same
cores the bar says nothing: look at the load, and at the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch import multiprocessing

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.bars import at_least

IMAGES, PIXELS, WARM_UP = 4, 128, 3
BOUND = 0.85


def trainer(ranks: int) -> Any:
    """Return what the product's step needs, with random scenes of 128 px, wrapped for the group's ranks."""
    from sarx.config.compose import compose
    from sarx.data import Split, describe
    from sarx.training.trainer import build_trainer, distribute

    config = compose(
        ["model=fcn_hrnet_w18_small", "regularizer.gate=always", f"training.batch_size={IMAGES * ranks}"]
    )
    data = describe(config.data, 0)
    random = np.random.default_rng(0)
    shape = (2 * IMAGES * ranks, data.in_channels, PIXELS, PIXELS)
    images = random.integers(0, 256, shape, dtype=np.uint8)
    labels = random.integers(0, data.num_classes, (shape[0], PIXELS, PIXELS), dtype=np.uint8)
    built = build_trainer(config, data, Split(images, labels), torch.device("cpu"))
    distribute(built)
    return built


def work(number: int, processes: int, grouped: bool, folder: str, steps: int, rounds: int) -> None:
    """Take part in every round: wait for the start file, time ``steps`` steps, write their seconds.

    Args:
        number: Of the process.
        processes: Number of processes that start together.
        grouped: Whether they are the ranks of one group.
        folder: Where processes meet.
        steps: Steps of a round.
        rounds: Number of rounds.
    """
    from sarx.training.trainer import take_step

    torch.set_num_threads(1)
    here = Path(folder)
    if grouped:
        store = (here / "store").as_uri()
        wait = timedelta(minutes=10)
        dist.init_process_group("gloo", init_method=store, rank=number, world_size=processes, timeout=wait)
    built = trainer(processes if grouped else 1)
    for step in range(WARM_UP):
        take_step(built, step)
    (here / f"ready-{number}").touch()
    for turn in range(rounds):
        wait_for(here / f"start-{turn}")
        began = time.perf_counter()
        for step in range(steps):
            take_step(built, step)
        part = here / f"part-{turn}-{number}"
        part.write_text(str(time.perf_counter() - began))
        part.rename(here / f"done-{turn}-{number}")
    os._exit(0)  # torch 2.15: at the interpreter's end, gloo's threads may abort a process that used DDP


def wait_for(path: Path) -> None:
    """Wait until a file is there; a waiting process costs next to nothing."""
    while not path.exists():
        time.sleep(0.02)


WAYS = {"1 rank": (1, False), "2 processes": (2, False), "2 ranks": (2, True)}
"""Way -> number of processes, whether they are one group."""


def measure(steps: int, rounds: int) -> dict[str, list[float]]:
    """Return the samples per second of each way in each round."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as root:
        started = []
        for way, (processes, grouped) in WAYS.items():
            folder = Path(root) / way.replace(" ", "-")
            folder.mkdir()
            given = (processes, grouped, str(folder), steps, rounds)
            started.append(multiprocessing.spawn(work, args=given, nprocs=processes, join=False))
            for number in range(processes):
                wait_for_process(folder / f"ready-{number}", started)
        for turn in range(rounds):
            for way, (processes, _) in WAYS.items():
                folder = Path(root) / way.replace(" ", "-")
                (folder / f"start-{turn}").touch()
                done = [folder / f"done-{turn}-{number}" for number in range(processes)]
                for path in done:
                    wait_for_process(path, started)
                slowest = max(float(path.read_text()) for path in done)
                rates[way].append(processes * steps * IMAGES / slowest)
        for context in started:
            while not context.join():
                pass
    return rates


def wait_for_process(path: Path, started: list[Any]) -> None:
    """Wait for a file that a process writes; raise what has ended one."""
    while not path.exists():
        for context in started:
            context.join(timeout=0.02)


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="steps of a round")
    options = parser.parse_args()
    load = os.getloadavg()
    rates = measure(options.steps, options.rounds)
    best = {way: max(values) for way, values in rates.items()}
    print(
        f"HRNet-W18-small, {PIXELS} px, {IMAGES} images per process, 1 thread each; {os.cpu_count()} CPUs, "
    )
    print(f"load before {load[0]:.1f}, after {os.getloadavg()[0]:.1f}; samples/s, best of {options.rounds}")
    for way, values in rates.items():
        shown = "  ".join(f"{value:.2f}" for value in values)
        print(f"{way:12s} {best[way]:8.2f}   over 1 rank {best[way] / best['1 rank']:.2f}   rounds {shown}")
    pairs = zip(rates["2 ranks"], rates["2 processes"], strict=True)
    print(f"2 ranks over 2 processes within a round: median {statistics.median(a / b for a, b in pairs):.3f}")
    return 0 if at_least("ddp_over_independent", best["2 ranks"] / best["2 processes"], BOUND) else 1


if __name__ == "__main__":
    sys.exit(main())
