"""A writer of synthetic ledgers, as the driver would write them."""

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ARMS = ("sar", "no_pull", "no_aux", "cross_entropy")
LEVELS = ("model=small", "model=large")
PAYLOAD: dict[str, Any] = {
    "study": "sar-ablation",
    "question": "Which parts of SAR earn their keep?",
    "file": "study: sar-ablation",
    "objective": {"metric": "val/miou", "mode": "max"},
    "report": {"primary": "test/miou", "smallest_effect": 0.02, "secondary": []},
    "reference": "sar",
    "trials_per_arm": 2,
    "steps": 600,
    "selection": "val",
    "budget": "demonstration budget",
    "plan": {
        "seed": 0,
        "sampler": "qmc",
        "space": {"optim.lr": "0.001 .. 0.1, log"},
        "base": ["training.steps=600", "data=digits"],
        "cpus_per_worker": 1,
    },
    "scores": "miou is the mean over 10 of 11 classes",
    "code": {"digest": "c0de", "files": {}},
    "versions": {},
    "command": "python -m sarx.tune",
}
# Mean difference to the reference of each arm; no_aux is not run: it is made identical to cross_entropy.
EFFECTS = {"sar": 0.0, "no_pull": 0.05, "no_aux": -0.05, "cross_entropy": -0.05}


class LedgerWriter:
    """Appends events with seq, time and crc; columns that are None are left out.

    Args:
        study: folder of the study.
        old: write no confirm_seeds, plan, scores and codes, as drivers did once.
    """

    def __init__(self, study: Path, old: bool = False) -> None:
        self.study = study
        self.file = study / "ledger" / "events.ndjson"
        self.file.parent.mkdir(parents=True)
        self.seq = 0
        self.old = old
        self.seed = 0  # of the plan; confirm index k has the seed 1000 * (1 + seed) + k
        self.code: str | None = None

    def add(self, event: str, **columns: Any) -> None:
        """Append one event; ``metrics`` is a dict, ``payload`` any JSON value."""
        if "metrics" in columns:
            columns["metrics"] = [
                {"name": k, "value": v} if math.isfinite(v) else {"name": k, "nonfinite": str(v)}
                for k, v in columns["metrics"].items()
            ]
        if "payload" in columns:
            columns["payload"] = json.dumps(columns["payload"])
        line = {"v": 1, "seq": self.seq, "time": 1.7e9 + self.seq, "event": event, **columns}
        self.seq += 1
        self.raw(self.sealed({key: value for key, value in line.items() if value is not None}) + "\n")

    def raw(self, text: str) -> None:
        """Append text as it is."""
        with self.file.open("a") as stream:
            stream.write(text)

    @staticmethod
    def sealed(line: dict[str, Any]) -> str:
        """Return a line with its crc, without newline."""
        text = json.dumps(line, separators=(",", ":"), allow_nan=False)
        return f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}'

    def open(self, arms: tuple[str, ...] = ARMS, levels: tuple[str, ...] = LEVELS, **changes: Any) -> None:
        """Append study_opened."""
        rows = [
            {"arm": arm, "level": level, "parameters": ["optim.lr"], "overrides": {}, "warnings": []}
            for level in levels
            for arm in arms
        ]
        payload = {**PAYLOAD, "arms": rows, "seeds": 8, **changes}
        self.seed = payload["plan"]["seed"]
        payload.setdefault("confirm_seeds", [self.confirm_seed(k) for k in range(payload["seeds"])])
        if self.old:
            for key in ("confirm_seeds", "plan", "scores"):
                payload.pop(key, None)
        else:
            self.code = payload["code"]["digest"]
        self.add("study_opened", payload=payload)

    def confirm_seed(self, index: int) -> int:
        """Return the seed of a confirm index under the plan of the last opening."""
        return 1000 * (1 + self.seed) + index

    def coded(self) -> dict[str, Any]:
        """Return the payload of a proposal or claim; none before the first opening and in old ledgers."""
        return {"payload": {"code": self.code}} if self.code is not None else {}

    def search(
        self, arm: str, level: str, winner: int = 0, tag: str = "", trials: int = 2, repeat: int | None = None
    ) -> None:
        """Append a search and its winner; search scores are far from any confirm score."""
        for index in range(trials):
            name = f"s-{tag}{level}-{arm}-{index}"
            where = {"arm": arm, "level": level or None, "phase": "search", "index": index, "seed": index}
            self.add("proposed", **where, repeat=repeat, trial_id=name, **self.coded())
            self.add("trial_started", trial_id=name, attempt=1, phase="search", epoch=0)
            end = {
                "trial_id": name,
                "attempt": 1,
                "phase": "search",
                "epoch": 2,
                "step": 600,
                "duration_s": 36.0,
            }
            self.add("epoch", **end, metrics={"val/miou": 0.9 + index / 100})
            self.add("trial_finished", **end, metrics={"val/miou": 0.9 + index / 100})
        name = f"s-{tag}{level}-{arm}-{winner}"
        row = {"arm": arm, "level": level or None, "repeat": repeat}
        self.add("selected", **row, trial_id=name, index=winner, metrics={"val/miou": 0.9})

    def claim(self, arm: str, level: str, index: int, trial_id: str, repeat: int | None = None) -> None:
        """Append a claim of a confirm trial."""
        where = {"arm": arm, "level": level or None, "phase": "confirm", "index": index, "repeat": repeat}
        self.add("claimed", **where, seed=self.confirm_seed(index), trial_id=trial_id, **self.coded())

    def finish(self, trial_id: str, metrics: dict[str, float], attempt: int = 1) -> None:
        """Append start and end of a confirm trial."""
        self.add("trial_started", trial_id=trial_id, attempt=attempt, phase="confirm", epoch=0)
        end = {"trial_id": trial_id, "attempt": attempt, "phase": "confirm", "epoch": 2, "step": 600}
        self.add("trial_finished", **end, duration_s=36.0, metrics=metrics)


def report_metrics(miou: float) -> dict[str, float]:
    """Return what a confirm trial reports."""
    test = {
        "test/miou": miou,
        "test/head_iou": miou + 0.1,
        "test/body_iou": miou,
        "test/tail_iou": miou - 0.1,
    }
    return {**test, "train/gate_open_share": 0.75, "train/first_open_step": 150.0, "val/miou": 0.95}


def write_whole_study(writer: LedgerWriter, seeds_done: int = 8) -> dict[tuple[str, str, int], float]:
    """Write 4 arms x 2 levels x 8 seeds and return the miou of (level, arm, seed).

    no_aux is equal to cross_entropy bit for bit: in the small model through shared trials, in the large one
    through equal metrics. Seed 3 of no_pull in the small model diverged; seed 2 of sar in the large one took
    two attempts.
    """
    rng = np.random.default_rng(5)
    writer.open()
    scores: dict[tuple[str, str, int], float] = {}
    for level in LEVELS:
        for arm in ARMS:
            writer.search(arm, level)
            for seed in range(8):
                twin = "cross_entropy" if arm == "no_aux" and level == LEVELS[0] else arm
                writer.claim(arm, level, seed, f"c-{level}-{twin}-{seed}")
        for seed in range(seeds_done):
            common = 0.3 + 0.05 * rng.normal()
            for arm in ARMS:
                value = float(common + EFFECTS[arm] + 0.005 * rng.normal())
                if arm == "cross_entropy":
                    value = scores[level, "no_aux", seed]
                scores[level, arm, seed] = value
                trial = f"c-{level}-{arm}-{seed}"
                if (level, arm, seed) == (LEVELS[0], "no_pull", 3):
                    writer.add("trial_started", trial_id=trial, attempt=1, phase="confirm", epoch=0)
                    writer.add("diverged", trial_id=trial, attempt=1, phase="confirm", epoch=1, payload={})
                    del scores[level, arm, seed]
                    continue
                retried = (level, arm, seed) == (LEVELS[1], "sar", 2)
                if retried:
                    writer.finish(trial, report_metrics(0.0), attempt=1)
                if arm == "no_aux" and level == LEVELS[0]:
                    continue
                writer.finish(trial, report_metrics(value), attempt=1 + retried)
    return scores


@pytest.fixture
def new_ledger(tmp_path: Path) -> Callable[..., LedgerWriter]:
    """Return a function that begins the ledger of a study in the storage ``tmp_path``."""

    def begin(name: str = "sar-ablation", old: bool = False) -> LedgerWriter:
        return LedgerWriter(tmp_path / name, old)

    return begin


@pytest.fixture
def whole_study() -> Callable[..., dict[tuple[str, str, int], float]]:
    """Return ``write_whole_study``."""
    return write_whole_study


@pytest.fixture
def metrics_of() -> Callable[[float], dict[str, float]]:
    """Return ``report_metrics``."""
    return report_metrics
