"""The ledger of a large study, line by line as a driver writes them, without running the engine.

Rows (arm x level) of 100 trials each: 74 of search, all judged at one rung and promoted, 3 finalists on 2
seeds, 20 confirm seeds. Every trial has 30 epochs; 8 run side by side, so that their events alternate. A few
attempts fail, diverge or are declared void. Metrics have the names and the number that trials of the embedded
data record: 31 at each epoch, 41 more at the end of a confirm trial; their values are random.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from sarx.study.ledger import pack_metrics
from sarx.study.ledger_schema import CONFIRM, FINALIST, SCHEMA_VERSION, SEARCH

Event = dict[str, Any]
LEVELS = tuple(f"data.imbalance={value}" for value in (1.0, 5.0, 20.0, 50.0, 100.0))
ROW_TRIALS, SEARCHED, TOP, FINALIST_SEEDS, SEEDS = 100, 74, 3, 2, 20
EPOCHS, RUNG, AT_ONCE = 30, 10, 8
CODE = "417623623b305f93"
SPACE = ("optim.lr", "optim.weight_decay", "regularizer.anchor_dim", "regularizer.aux_weight")
_SCORES = (
    *("miou", "head_iou", "body_iou", "tail_iou", "pixel_accuracy", "iou/background", "background_iou"),
    *(f"iou/digit_{digit}" for digit in range(10)),
)
_STEP = (
    *("loss", "task_loss", "aux_loss", "pull_loss", "gate_open", "anchor_confidence_min"),
    *("anchor_confidence_mean", "anchor_cosine", "aux_zero", "first_open_step", "gate_open_share"),
    *("aux_zero_share", "learning_rate"),
)
_COSINES = ("mean_cosine", "max_cosine", "centred_mean_cosine", "centred_max_cosine", "etf_distance")
_SLOPES = ("iou", "iou_se", "predicted_ratio", "predicted_ratio_se", "classifier_norm", "classifier_norm_se")
EPOCH_METRICS = (
    *(f"val/{name}" for name in _SCORES),
    *(f"train/{name}" for name in _STEP),
    "time/samples_per_s",
)
REPORT_METRICS = (
    *(f"test/{name}" for name in _SCORES),
    *(f"geometry/features/{name}" for name in ("nc1", "within_share")),
    *(
        f"geometry/{vectors}/{name}"
        for vectors in ("class_means", "classifier_rows", "semantic_anchors")
        for name in _COSINES
    ),
    *(f"geometry/slope/{name}" for name in _SLOPES),
    "probe/miou",
)


def write_ledger(
    folder: Path,
    trials: int,
    metrics: int = len(EPOCH_METRICS),
    also: Callable[[Event], None] | None = None,
) -> int:
    """Write the ledger of a study; return how many events it has.

    Args:
        folder: of the study.
        trials: a multiple of 500.
        metrics: how many each epoch has, the objective among them.
        also: is given every event.
    """
    arms = [f"arm_{number:02d}" for number in range(trials // (ROW_TRIALS * len(LEVELS)))]
    rows = list(itertools.product(LEVELS, arms))
    (folder / "ledger").mkdir(parents=True)
    with (folder / "ledger" / "events-000001.ndjson").open("wb", buffering=1 << 20) as file:
        count = 0
        for event in _events(rows, np.random.default_rng(0)):
            if "metrics" in event:
                event["metrics"][metrics : len(EPOCH_METRICS)] = []
            if also is not None:
                also(event)
            head = {"v": SCHEMA_VERSION, "seq": count, "time": 1.7e9 + count / 8, "fence": 1}
            file.write(_line(head | event))
            count += 1
    return count


def _line(event: Event) -> bytes:
    """Return an event as a line with its checksum; faster than the driver's own writer, which is checked."""
    text = orjson.dumps(event)
    return b'%s,"crc":"%08x"}\n' % (text[:-1], zlib.crc32(text))


def _events(rows: list[tuple[str, str]], random: np.random.Generator) -> Iterator[Event]:
    """Yield the events of the whole study without seq."""
    seeds = [int(seed) for seed in random.integers(0, 2**62, SEEDS)]
    yield {"event": "study_opened", "payload": json.dumps(_opening(rows, seeds))}
    searched = [_place(SEARCH, *row, index, index) for index in range(SEARCHED) for row in rows]
    yield from searched
    yield from _trained(searched, random)
    again = [
        _place(FINALIST, *row, top * FINALIST_SEEDS + seed, 10**6 + seed, proposal=top)
        for top in range(TOP)
        for seed in range(FINALIST_SEEDS)
        for row in rows
    ]
    yield from again
    yield from _trained(again, random)
    for level, arm in rows:
        winner = _place(SEARCH, level, arm, 0, 0)
        score = [{"name": "val/miou", "value": float(random.random())}]
        chosen = {key: winner[key] for key in ("trial_id", "arm", "level", "repeat", "index", "parameters")}
        yield {"event": "selected", **chosen, "metrics": score}
    claims = [
        _place(CONFIRM, *row, index, seeds[index], proposal=0) for index in range(SEEDS) for row in rows
    ]
    yield from claims
    yield from _trained(claims, random)
    yield {"event": "study_finished", "payload": json.dumps({"reason": "all trials are decided"})}


def _opening(rows: list[tuple[str, str]], seeds: list[int]) -> dict[str, Any]:
    """Return the payload of the study's start."""
    return {
        "study": "large",
        "question": "How long does the report of a large study take?",
        "file": "study: large",
        "objective": {"metric": "val/miou", "mode": "max"},
        "report": {"primary": "test/miou", "smallest_effect": 0.005, "secondary": ["test/tail_iou"]},
        "reference": rows[0][1],
        "arms": [
            {"arm": arm, "level": level, "parameters": [*SPACE], "overrides": {}, "warnings": []}
            for level, arm in rows
        ],
        "trials_per_arm": SEARCHED,
        "seeds": SEEDS,
        "confirm_seeds": seeds,
        "plan": {
            "seed": 0,
            "sampler": "qmc",
            "space": dict.fromkeys(SPACE, "[0, 1]"),
            "ranges": {key: {"kind": "float", "low": 0.0, "high": 1.0} for key in SPACE},
            "base": ["data=digit_scenes", "regularizer=sar"],
            "cpus_per_worker": 1,
            "gpus_per_worker": 0,
            "max_failures": 2,
            "repeats": 1,
            "scheduler": {"name": "median", "min_fraction": 1 / 3, "min_trials": 4},
            "rungs": [RUNG],
            "finalists": {"top": TOP, "seeds": FINALIST_SEEDS},
            "overrides": {"data.train_size": 200},
            "reproducible": False,
        },
        "scores": "miou is the mean over 10 of 11 classes",
        "steps": 100 * EPOCHS,
        "selection": "val",
        "budget": "",
        "code": {"digest": CODE, "files": {}},
        "versions": {},
        "command": "python -m sarx.tune large.yaml",
    }


def _place(phase: str, level: str, arm: str, index: int, seed: int, **also: int) -> Event:
    """Return the proposal or claim of one trial; ``also`` proposal: the search trial whose point it has."""
    name = f"{phase} {level} {arm} {index}".encode()
    point = also.get("proposal", index)
    values = [math.sin(1.0 + point + place) ** 2 for place in range(len(SPACE))]
    return {
        "event": "proposed" if phase == SEARCH else "claimed",
        "trial_id": hashlib.sha256(name).hexdigest()[:16],
        "arm": arm,
        "level": level,
        "phase": phase,
        "repeat": 0,
        "index": index,
        "seed": seed,
        "parameters": [
            {"name": name, "value": json.dumps(value)} for name, value in zip(SPACE, values, strict=True)
        ],
        "payload": json.dumps({"code": CODE, **(also if phase == FINALIST else {})}),
    }


def _trained(places: list[Event], random: np.random.Generator) -> Iterator[Event]:
    """Yield what the trials of some proposals or claims give, ``AT_ONCE`` of them in turn."""
    for start in range(0, len(places), AT_ONCE):
        runs = [_run(place, start + at, random) for at, place in enumerate(places[start : start + AT_ONCE])]
        for turn in itertools.zip_longest(*runs):
            yield from (event for event in turn if event is not None)


def _run(place: Event, number: int, random: np.random.Generator, attempt: int = 1) -> Iterator[Event]:
    """Yield the events of one trial."""
    trial, phase = {"trial_id": place["trial_id"]}, place["phase"]
    of_phase = {**trial, "attempt": attempt, "phase": phase}
    until = RUNG if phase == SEARCH else EPOCHS
    yield {"event": "trial_started", **of_phase, "epoch": 0, "payload": json.dumps({"until": until})}
    if number % 97 == 5:  # the second attempt begins anew
        yield _epoch({"event": "epoch", **of_phase}, 1, random)
        yield {"event": "failed", **of_phase, "payload": '{"reason": "killed", "kind": "out_of_memory"}'}
        of_phase["attempt"] += 1
        yield {"event": "trial_started", **of_phase, "epoch": 0, "payload": json.dumps({"until": until})}
    for epoch in range(1, EPOCHS + 1):
        if epoch == EPOCHS and number % 211 == 7:
            yield {"event": "diverged", **of_phase, "epoch": epoch, "payload": '{"reason": "not finite"}'}
            return
        at_rung = phase == SEARCH and epoch == RUNG
        kind = "trial_finished" if epoch == EPOCHS else "rung" if at_rung else "epoch"
        yield _epoch({"event": kind, **of_phase}, epoch, random)
        if at_rung:
            where = {key: place[key] for key in ("arm", "level", "repeat", "index")}
            yield {"event": "promoted", **trial, **where, "epoch": epoch}
            of_phase["attempt"] += 1
            more = json.dumps({"until": EPOCHS})
            yield {"event": "trial_started", **of_phase, "epoch": epoch, "payload": more}
    if number % 499 == 11 and attempt == 1:
        yield {"event": "forgotten", **trial, "payload": '{"reason": "a wrong disk"}'}
        yield from _run(place, number, random, of_phase["attempt"] + 1)


def _epoch(event: Event, epoch: int, random: np.random.Generator) -> Event:
    """Return an event of an epoch with its metrics."""
    report = event["event"] == "trial_finished" and event["phase"] == CONFIRM
    names = EPOCH_METRICS + REPORT_METRICS if report else EPOCH_METRICS
    metrics = dict(zip(names, random.random(len(names)).tolist(), strict=True))
    metrics |= {"train/first_open_step": -1.0}
    if epoch == 3:
        metrics["train/anchor_cosine"] = math.nan
    timed = {"epoch": epoch, "step": 100 * epoch, "duration_s": 8 + metrics["train/loss"]}
    return event | timed | {"metrics": pack_metrics(metrics)}
