"""Whole synthetic studies with search, curves and files, and what their figures are held against."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.figures.drawing import settle
from analysis.figures.style import styled
from analysis.report import make_report
from analysis.sources import Sources

SPACE = {
    "optim.lr": "[0.001, 0.03] log",
    "optim.weight_decay": "[1e-05, 0.1] log",
    "loss.tau": "[0.1, 10] log",
    "regularizer.anchor_dim": "{32, 128, feature_dim}",
    "regularizer.aux_weight": "[0, 2] step 0.5",
    "regularizer.pull_weight": "[0.01, 1] log",
    "regularizer.ema_half_life": "[0.002, 0.5] log",
}
CHOICES = [32, 128, "feature_dim"]
ARMS = (
    *("sar", "no_pull", "no_aux", "no_ema", "own_classifier", "prototypes", "cross_entropy"),
    *("logit_adjusted", "gate_always", "update_confidence_0", "a-very-long-name-of-an-arm-that-never-ends"),
    *("class_balanced", "ohem", "detached"),
)
CLASSES = ("background", *(f"digit_{d}" for d in range(10)))
STEPS = (100, 200, 300, 400)


@dataclass
class Study:
    """What ``write`` wrote, by level, arm and seed or proposal, for tests to compute from anew."""

    writer: Any
    scores: dict[tuple[str, str, int], float] = field(default_factory=dict)
    curves: dict[tuple[str, str, int], list[tuple[int, float, float]]] = field(default_factory=dict)
    iou: dict[tuple[str, str, int], Any] = field(default_factory=dict)
    confusion: dict[tuple[str, str, int], Any] = field(default_factory=dict)
    proposals: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)

    @property
    def sources(self) -> Sources:
        """Read the ledger."""
        return make_report(self.writer.study).sources


def searched(arm: str) -> list[str]:
    """Return what an arm searches: fewer options in the later arms of ``ARMS``."""
    names = list(SPACE)
    if arm in ("cross_entropy", "ohem", "class_balanced"):
        return names[:2]
    if arm == "logit_adjusted":
        return names[:3]
    return [*names[:2], *names[3:]]


def write(
    writer: Any,
    arms: Sequence[str] = ARMS[:9],
    levels: Sequence[str] = ("model=small", "model=large"),
    seeds: int = 10,
    trials: int = 8,
    classes: Sequence[str] = CLASSES,
    confirm: bool = True,
    files: bool = True,
    seed: int = 0,
    **plan: Any,
) -> Study:
    """Write a study: proposals of every state, a winner per arm, epochs, report metrics, geometry files.

    Of the second arm seed 1 diverged; its seed 2 has NaN. The last arm equals the one before where there are
    more than 3. Proposal 0 takes the defaults; 2 is stopped, 4 diverged, 5 failed, 6 repeats 3.
    """
    study, rng = Study(writer), np.random.default_rng(seed)
    own = {
        "seed": 0,
        "sampler": "qmc",
        "space": SPACE,
        "base": ["training.steps=400"],
        "cpus_per_worker": 1,
        "max_failures": 0,
        "scheduler": {"name": "successive_halving"},
        "rungs": [2],
    }
    terms = {"reference": arms[0], "seeds": seeds, "trials_per_arm": trials, "plan": own, **plan}
    writer.open(tuple(arms), tuple(levels), **terms)
    for level in levels:
        for place, arm in enumerate(arms):
            search(study, level, arm, trials, rng)
            if confirm:
                confirm_arm(study, level, arms, place, seeds, classes, files, rng)
    return study


def search(study: Study, level: str, arm: str, trials: int, rng: np.random.Generator) -> None:
    """Write the search of one arm; its winner is the best of those that ran to the end."""
    writer, ended = study.writer, {}
    for index in range(trials):
        state = {2: "stopped", 4: "diverged", 5: "failed", 6: "duplicate"}.get(index, "finished")
        trial = f"s-{level}-{arm}-{3 if state == 'duplicate' else index}"
        values = study.proposals[level, arm, 3] if state == "duplicate" else draw(arm, index, rng)
        study.proposals[level, arm, index] = values
        where = {"arm": arm, "level": level or None, "phase": "search", "index": index, "seed": index}
        payload = {"code": "c0de", **({"same_as": 3} if state == "duplicate" else {})}
        stored = [{"name": k, "value": json.dumps(v)} for k, v in values.items() if k != "value"]
        writer.add("proposed", **where, trial_id=trial, parameters=stored, payload=payload)
        if state == "duplicate":
            continue
        at = {"trial_id": trial, "attempt": 1, "phase": "search"}
        writer.add("trial_started", **at, epoch=0)
        if state in ("diverged", "failed"):
            writer.add(state, **at, epoch=1, payload={"kind": "crashed"})
            continue
        for epoch in range(1, 3 if state == "stopped" else 5):
            name = (
                "trial_finished" if epoch == 4 else "rung" if state == "stopped" and epoch == 2 else "epoch"
            )
            score = values["value"] * (0.5 + epoch / 8)
            done = {"epoch": epoch, "step": STEPS[epoch - 1], "duration_s": 1.0}
            writer.add(name, **at, **done, metrics={"val/miou": score})
        if state == "stopped":
            row = {"arm": arm, "level": level or None, "index": index, "trial_id": trial}
            writer.add("stopped", **row, epoch=2, payload={"reason": "rung"})
        else:
            ended[index] = values["value"]
    winner = max(ended, key=lambda index: ended[index])
    stored = [
        {"name": k, "value": json.dumps(v)}
        for k, v in study.proposals[level, arm, winner].items()
        if k != "value"
    ]
    row = {"arm": arm, "level": level or None, "trial_id": f"s-{level}-{arm}-{winner}", "index": winner}
    writer.add("selected", **row, parameters=stored, metrics={"val/miou": ended[winner]})


def draw(arm: str, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the values of a proposal with its score under ``value``."""
    u = rng.random(len(SPACE))
    values: dict[str, Any] = {}
    for at, name in enumerate(SPACE):
        if name == "regularizer.anchor_dim":
            values[name] = CHOICES[int(3 * u[at])]
        elif name == "regularizer.aux_weight":
            values[name] = int(5 * u[at]) * 0.5
        else:
            low, high = (float(text) for text in SPACE[name].split(" log")[0][1:-1].split(", "))
            values[name] = low * (high / low) ** float(u[at])
    chosen = {name: values[name] for name in searched(arm)} if index else {}
    return {**chosen, "value": 0.5 + 0.1 * float(rng.normal())}


def confirm_arm(
    study: Study,
    level: str,
    arms: Sequence[str],
    place: int,
    seeds: int,
    classes: Sequence[str],
    files: bool,
    rng: np.random.Generator,
) -> None:
    """Write the confirm trials of one arm."""
    writer, arm = study.writer, arms[place]
    for seed in range(seeds):
        twin = place > 2 and place == len(arms) - 1
        trial = f"c-{level}-{arms[place - 1] if twin else arm}-{seed}".replace("/", "_")
        writer.claim(arm, level, seed, trial)
        if twin:
            for known in (study.scores, study.curves, study.iou, study.confusion):
                if (level, arms[place - 1], seed) in known:
                    known[level, arm, seed] = known[level, arms[place - 1], seed]  # type: ignore[index]
            continue
        at = {"trial_id": trial, "attempt": 1, "phase": "confirm"}
        if place == 1 and seed == 1:
            writer.add("trial_started", **at, epoch=0)
            writer.add("diverged", **at, epoch=1, payload={})
            continue
        finish(study, (level, arm, seed), at, 0.012 * np.sin(2.5 * place), classes, files, rng)


def finish(
    study: Study,
    key: tuple[str, str, int],
    at: dict[str, Any],
    effect: float,
    classes: Sequence[str],
    files: bool,
    rng: np.random.Generator,
) -> None:
    """Write epochs, end and file of one confirm trial."""
    level, arm, seed = key
    common = np.random.default_rng([seed, len(level)])
    counts = np.round(10 ** np.linspace(6, 2.2, len(classes)) * common.uniform(0.8, 1.2)).astype(np.int64)
    matrix = common.integers(0, 60, (len(classes), len(classes))) ** 4 // 90_000 + rng.integers(
        0, 9, (len(classes),) * 2
    )
    matrix[np.diag_indices(len(classes))] += (800 + 4000 * (effect + 0.02 * rng.random(len(classes)))).astype(
        int
    )
    right = np.diagonal(matrix).astype(np.float64)
    iou = right / (matrix.sum(0) + matrix.sum(1) - right)
    score = float(iou[1:].mean()) if len(classes) > 1 else float(iou.mean())
    recorded = float("nan") if (arm, seed) == ("no_pull", 2) else score
    test = {"test/miou": recorded, "test/tail_iou": float(iou[-1])}
    test |= {f"test/iou/{name}": float(value) for name, value in zip(classes, iou, strict=True)}
    test[f"test/{classes[0]}_iou"] = float(iou[0])
    curve = []
    for epoch, step in enumerate(STEPS, 1):
        loss = 2.0 / epoch + 0.05 * float(rng.normal())
        val = score * (1 - 0.5 / epoch) + 0.01 * float(rng.normal())
        curve.append((step, loss, val))
        metrics = {"train/loss": loss, "val/miou": val}
        last = epoch == len(STEPS)
        study.writer.add(
            "trial_finished" if last else "epoch",
            **at,
            epoch=epoch,
            step=step,
            duration_s=2.0,
            metrics=metrics | test if last else metrics,
        )
    study.scores[key], study.curves[key], study.iou[key], study.confusion[key] = recorded, curve, iou, matrix
    if files:
        folder = study.writer.study / "trials" / at["trial_id"] / "attempt-1"
        folder.mkdir(parents=True)
        arrays = {"iou": iou.astype(np.float32), "train_counts": counts, "confusion": matrix}
        np.savez(folder / "geometry.npz", **arrays)


def texts(figure: Figure) -> list[tuple[str, Any]]:
    """Return every visible text of a settled figure with its box in pixels."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.draw(renderer)
    unseen = ticks_out_of_view(figure)
    found = []
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip() and id(text) not in unseen:
            found.append((text.get_text(), text.get_window_extent(renderer)))
    return found


def ticks_out_of_view(figure: Figure) -> set[int]:
    """Return the ids of the labels of ticks that lie outside of their axis."""
    unseen: set[int] = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        shown = {id(tick) for tick in axis._update_ticks()}  # type: ignore[attr-defined]
        ticks = [tick for tick in (*axis.majorTicks, *axis.minorTicks) if id(tick) not in shown]
        unseen |= {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    return unseen


def text_problems(figure: Figure) -> list[str]:
    """Return which texts of a figure overlap, or leave it."""
    with styled():
        settle(figure)
        found = texts(figure)
    width, height = figure.get_size_inches() * figure.dpi
    problems = [
        f"outside: {text!r} {box.extents}"
        for text, box in found
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    for at, (text, box) in enumerate(found):
        for other, second in found[:at]:
            wide = min(box.x1, second.x1) - max(box.x0, second.x0)
            high = min(box.y1, second.y1) - max(box.y0, second.y0)
            if wide > 1 and high > 1:
                problems.append(f"overlap: {text!r} and {other!r}")
    return problems


@pytest.fixture
def study(new_ledger: Callable[..., Any]) -> Callable[..., Study]:
    """Return a function that writes a study, see ``write``."""

    def begin(name: str = "sar-ablation", **options: Any) -> Study:
        return write(new_ledger(name), **options)

    return begin


@pytest.fixture
def problems() -> Callable[[Figure], list[str]]:
    """Return ``text_problems``."""
    return text_problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder for files of figures."""
    found = tmp_path / "drawn"
    found.mkdir()
    return found
