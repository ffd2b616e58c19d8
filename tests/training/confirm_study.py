"""A study whose confirm trials are trained in this process: real ledger, real files, no Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sarx.config.schema import TrainConfig, as_dict
from sarx.data import fingerprint
from sarx.study.design import Arm, make_arms
from sarx.study.identity import training_code, trial_id
from sarx.study.ledger import Ledger, pack_metrics
from sarx.study.ledger_schema import CONFIRM
from sarx.study.load import load_study
from sarx.study.opening import opened_payload
from sarx.study.provenance import write_config
from sarx.study.schema import Study
from sarx.study.seeds import derive
from sarx.study.storage import StudyFolder
from sarx.training.loop import EpochResult
from sarx.training.report import train_and_report


def run_confirm_study(
    file: Path, storage: Path, skip: frozenset[tuple[str, int]] = frozenset()
) -> StudyFolder:
    """Train every confirm trial of a study with its defaults and return the study's folder.

    Args:
        file: The study.
        storage: Folder of studies.
        skip: Arms and seeds whose trials are claimed and do not run.
    """
    study, source = load_study(file)
    arms, code = make_arms(study, source), training_code()
    folder = StudyFolder(storage / study.study)
    folder.ledger.mkdir(parents=True)
    with Ledger(folder.ledger) as ledger:
        ledger.append("study_opened", payload=json.dumps(opened_payload(study, arms, code, [])))
        for config, arm, seed in planned(study, arms):
            name = trial_id(config, data_fingerprint=fingerprint(config.data), code=code.digest)
            where = {"arm": arm.name, "level": arm.level, "phase": CONFIRM, "index": seed}
            payload = json.dumps({"code": code.digest})
            ledger.append("claimed", **where, seed=config.seed, trial_id=name, payload=payload)
            if (arm.name, seed) in skip:
                continue
            attempt = {"trial_id": name, "attempt": 1, "phase": CONFIRM}
            ledger.append("trial_started", **attempt, epoch=0)
            write_config(folder.trial(name), as_dict(config), name, config.seed)
            last = [*train_and_report(config, folder=folder.attempt(name, 1))][-1]
            ledger.append("trial_finished", **attempt, **finished(last))
    return folder


def planned(study: Study, arms: list[Arm]) -> Iterator[tuple[TrainConfig, Arm, int]]:
    """Yield options, arm and number of every confirm trial, arms interleaved."""
    for number in range(study.confirm.seeds):
        for arm in arms:
            yield replace(arm.config, seed=derive(study.seed, CONFIRM, number), role=CONFIRM), arm, number


def finished(last: EpochResult) -> dict[str, object]:
    """Return what the ledger records of a last epoch."""
    return {
        "epoch": last.epoch,
        "step": last.step,
        "duration_s": last.duration_s,
        "metrics": pack_metrics(last.metrics),
    }
