"""What SAR costs: ``just bench regularizer [--device cuda] [--compiled]``.

Time and peak memory of the pull loss, of the whole regularizer and of a whole training step, against the
literal one-hot twin that the tests use as oracle and against a gather. All variants of a table take turns in
one process; a ratio is the median over rounds of the ratio within the round. Extra memory is what forward and
backward need at their peak beyond the features and their gradient, as a share of the features, each variant
in a process of its own. Before anything is timed, loss and gradient are compared with float64.
``--compiled`` adds the pull loss as torch.compile fuses it, which is how a GPU may want it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sarx.config.compose import compose
from sarx.regularizers import SemanticAnchorRegularizer, sar
from sarx.regularizers.pull import pull_loss
from tests.regularizers.oracle import gathered_pull, one_hot_pull

SETTINGS = {"19 classes": ((2, 720, 128, 256), 19), "150 classes": ((4, 720, 128, 128), 150)}
IGNORED = 255
MIB = 2**20
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-6
BOUNDS = {"pull_time": 0.35, "pull_memory": 0.10, "step_time": 1.05}

Pull = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def chunked_pull(features: Tensor, labels: Tensor, targets_CD: Tensor, ignore_index: int) -> Tensor:
    """The product's pull loss, as a mean over valid pixels."""
    weight = 1.0 / (labels != ignore_index).sum().clamp(min=1).to(targets_CD.dtype)
    return pull_loss(
        features, labels, targets_CD, weight.expand(targets_CD.shape[0]), ignore_index=ignore_index
    )


PULLS: dict[str, Pull] = {"one-hot twin": one_hot_pull, "gather": gathered_pull, "sarx": chunked_pull}
"""The first is what the others are measured against."""


def batch(setting: str, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (B, D, H, W) that need a gradient, labels with 1/16 ignored, and targets (C, D)."""
    shape, classes = SETTINGS[setting]
    generator = torch.Generator().manual_seed(0)
    features = torch.empty(shape).normal_(generator=generator).relu_()
    labels = torch.randint(0, classes, (shape[0], *shape[2:]), generator=generator)
    labels[:, : shape[2] // 16] = IGNORED
    targets = torch.empty(classes, shape[1]).normal_(generator=generator)
    return features.to(device).requires_grad_(), labels.to(device), targets.to(device)


def deviations(setting: str, device: str) -> tuple[float, float]:
    """Return the relative errors of loss and gradient against the twin in float64."""
    features, labels, targets = batch(setting, device)
    loss = chunked_pull(features, labels, targets, IGNORED)
    gradient = torch.autograd.grad(loss, features)[0]
    exact = features.detach().double().requires_grad_()
    wanted = one_hot_pull(exact, labels, targets.double(), IGNORED)
    wanted_gradient = torch.autograd.grad(wanted, exact)[0]
    error = (gradient.double() - wanted_gradient).abs().max() / wanted_gradient.abs().max()
    return float(((loss.double() - wanted).abs() / wanted.abs()).detach()), float(error)


def take_turns(variants: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, list[float]]:
    """Return the seconds of each variant in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            synchronise(device)
            started = time.perf_counter()
            run()
            synchronise(device)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return the median over rounds of each variant's time over the first variant's of the same round."""
    first = next(iter(seconds.values()))
    return {
        name: statistics.median(own / other for own, other in zip(times, first, strict=True))
        for name, times in seconds.items()
    }


def pull_runs(setting: str, device: str) -> dict[str, Callable[[], None]]:
    """Return forward and backward of each pull loss."""
    features, labels, targets = batch(setting, device)

    def run(pull: Pull) -> None:
        features.grad = None
        pull(features, labels, targets, IGNORED).backward()

    return {name: lambda pull=pull: run(pull) for name, pull in PULLS.items()}


def regularizer_runs(setting: str, device: str) -> dict[str, Callable[[], None]]:
    """Return forward and backward of the whole regularizer with each pull loss, the gate always open."""
    features, labels, targets = batch(setting, device)
    classes, width = targets.shape
    regularizer = SemanticAnchorRegularizer(classes, width, gate="always").to(device)
    classifier = nn.Conv2d(width, classes, 1).to(device)

    def run(pull: Pull) -> None:
        features.grad = None
        with using(pull):
            regularizer(features, labels, classifier).loss.backward()

    return {name: lambda pull=pull: run(pull) for name, pull in PULLS.items()}


class using:
    """Let the regularizer compute its pull with another function."""

    def __init__(self, pull: Pull) -> None:
        """Take the replacement; the product's own pull stays in place."""
        self.pull = pull

    def __enter__(self) -> None:
        """Replace."""
        if self.pull is not chunked_pull:
            sar.pull_loss = lambda features, labels, targets, weights, ignore_index, **_: self.pull(
                features, labels, targets, ignore_index
            )

    def __exit__(self, *_: object) -> None:
        """Restore."""
        sar.pull_loss = pull_loss


def step_runs(device: str, pixels: int = 128, images: int = 4) -> dict[str, Callable[[], None]]:
    """Return whole training steps of HRNet-W18-small, 11 classes: plain cross-entropy first."""
    from sarx.data import describe
    from sarx.training.optim import build_optimizer
    from sarx.training.step import build_module

    generator = torch.Generator().manual_seed(0)
    inputs = torch.empty(images, 3, pixels, pixels).normal_(generator=generator).to(device)
    runs: dict[str, Callable[[], None]] = {}
    for name, regularizer, pull in (
        ("cross-entropy", "none", chunked_pull),
        ("SAR, sarx", "sar", chunked_pull),
        ("SAR, one-hot twin", "sar", one_hot_pull),
    ):
        choices = ["model=fcn_hrnet_w18_small", f"regularizer={regularizer}"]
        config = compose([*choices, *(["regularizer.gate=always"] if regularizer == "sar" else [])])
        data = describe(config.data, 0)
        images_in = inputs[:, :1].expand(-1, data.in_channels, -1, -1).contiguous()
        labels = torch.randint(0, data.num_classes, (images, pixels, pixels), generator=generator).to(device)
        module = build_module(config, data, torch.ones(data.num_classes)).to(device)
        optimizer = build_optimizer(module.parameters(), config.optim)
        runs[name] = training_step(module, optimizer, images_in, labels, pull)
    return runs


def training_step(
    module: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, pull: Pull
) -> Callable[[], None]:
    """Return a function that takes one optimizer step."""

    def run() -> None:
        with using(pull):
            loss, _ = module(images, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


def extra_memory(setting: str, name: str, device: str) -> float:
    """Return the peak beyond features and gradient as a share of the features, in this process."""
    features, labels, targets = batch(setting, device)
    small = F.relu(torch.ones(1, 720, 8, 8, device=device)).requires_grad_()
    PULLS[name](small, labels[:1, :8, :8], targets, IGNORED).backward()  # loads what is loaded once
    size = features.numel() * features.element_size()
    before = reset_peak(device)
    PULLS[name](features, labels, targets, IGNORED).backward()
    return (peak(device) - before - size) / size


def reset_peak(device: str) -> int:
    """Forget the peak so far and return the bytes in use."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return kilobytes("VmRSS") * 1024


def peak(device: str) -> int:
    """Return the peak of bytes in use since ``reset_peak``."""
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return kilobytes("VmHWM") * 1024


def kilobytes(field: str) -> int:
    """Return a field of /proc/self/status in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def measured_apart(setting: str, name: str, device: str) -> float:
    """Return ``extra_memory`` as a process of its own finds it."""
    command = [sys.executable, __file__, "--device", device, "--memory", setting, name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def steps_without_synchronisation(device: str) -> bool:
    """Return whether a whole SAR step runs while CUDA refuses every synchronisation of host and device."""
    run = step_runs(device)["SAR, sarx"]
    run()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        print(error)
        return False
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return True


def show(title: str, seconds: dict[str, list[float]], memory: dict[str, float] | None = None) -> None:
    """Print one table."""
    first = next(iter(seconds))
    print(f"\n{title}\n{'':20s} {'ms (median)':>12s} {'over ' + first:>20s} {'extra memory':>14s}")
    for name, ratio in ratios(seconds).items():
        extra = f"{memory[name]:13.1%}" if memory is not None else ""
        print(f"{name:20s} {1e3 * statistics.median(seconds[name]):12.1f} {ratio:20.3f} {extra:>14s}")


def judge(name: str, value: float, bound: float) -> bool:
    """Print the line of a bar and return whether it is met."""
    passed = value <= bound
    print(f"BAR {name} {value:.3f} <= {bound} {'pass' if passed else 'fail'}")
    return passed


def main() -> int:
    """Compare, time, measure, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compiled", action="store_true", help="also the pull loss under torch.compile")
    parser.add_argument("--memory", nargs=2, metavar=("SETTING", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compiled or "compiled" in (options.memory or ()):
        PULLS["compiled"] = torch.compile(chunked_pull, fullgraph=True)
    if options.memory:
        print(extra_memory(*options.memory, options.device))
        return 0
    device = options.device
    for setting in SETTINGS:
        loss, gradient = deviations(setting, device)
        print(f"{setting}: off float64 by {loss:.1e} in the loss and {gradient:.1e} in the gradient")
        if loss > LOSS_TOLERANCE or gradient > GRADIENT_TOLERANCE:
            print("not the same function; nothing is timed")
            return 1
    bars: list[tuple[str, float, float]] = []
    for setting, (shape, classes) in SETTINGS.items():
        memory = {name: measured_apart(setting, name, device) for name in PULLS}
        seconds = take_turns(pull_runs(setting, device), options.rounds, device)
        show(f"pull loss, {shape}, {setting}", seconds, memory)
        bars.append((f"pull_time_over_twin_{classes}", ratios(seconds)["sarx"], BOUNDS["pull_time"]))
        bars.append((f"pull_extra_memory_{classes}", memory["sarx"], BOUNDS["pull_memory"]))
        seconds = take_turns(regularizer_runs(setting, device), options.rounds, device)
        show(f"whole regularizer, {shape}, {setting}", seconds)
    seconds = take_turns(step_runs(device), 6 * options.rounds, device)
    show("training step, HRNet-W18-small, 4 images of 128 px, 11 classes", seconds)
    bars.append(("step_with_sar_over_plain", ratios(seconds)["SAR, sarx"], BOUNDS["step_time"]))
    print()
    passed = [judge(*bar) for bar in bars]
    if device == "cuda":
        passed.append(judge("synchronising_steps", float(not steps_without_synchronisation(device)), 0.0))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
