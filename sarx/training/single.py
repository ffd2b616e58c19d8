"""One training without Ray: a new one, or a trial of a study again, outside of the study."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarx.config import plugins
from sarx.config.compose import check_choice, compose, compose_groups, override, parse_overrides
from sarx.config.errors import UserError
from sarx.config.schema import GROUPS, TrainConfig, as_dict, build, fill
from sarx.config.schema.acting import warnings_of
from sarx.models.backbone_names import check_backbone
from sarx.study.identity import changed_files, training_code, trial_id
from sarx.study.ledger import Event, read_events, unpack_metrics, unpack_parameters
from sarx.study.ledger_schema import CONFIRM, SEARCH
from sarx.study.provenance import CONFIG, write_config
from sarx.study.source import read_source
from sarx.study.standing import Standing
from sarx.study.storage import SINGLE, StudyFolder, open_folder
from sarx.study.studies import find_study

SHOWN = 20
"""Differing metrics that are printed at most."""


@dataclass(frozen=True)
class Recorded:
    """A trial as its study has it.

    Attributes:
        study: Name of the study.
        config: Its options.
        files: Digest of each file of the code that identified it; empty if unknown.
        threads: CPU threads that it had, each of its workers.
        workers: Workers that trained it together.
        epoch: Last epoch that is recorded of its last attempt, 0 without one.
        metrics: Metrics of that epoch.
    """

    study: str
    trial_id: str
    config: TrainConfig
    files: Mapping[str, str]
    threads: int
    epoch: int
    metrics: Mapping[str, float]
    workers: int = 1


def new_config(texts: Sequence[str], report: bool) -> TrainConfig:
    """Compose the options of a new training, and print what cannot act.

    Args:
        texts: ``key=value``.
        report: Whether to score on the report split in the end.

    Raises:
        UserError: For options that do not compose.
    """
    pairs = {"role": "confirm" if report else "search", **parse_overrides(texts)}
    return _warned(compose(pairs), pairs)


def changed_config(config: TrainConfig, texts: Sequence[str], report: bool) -> TrainConfig:
    """Return options with ``key=value`` texts applied; a part that is chosen anew begins at its defaults.

    Raises:
        UserError: For options that do not compose.
    """
    pairs = ({"role": "confirm"} if report else {}) | parse_overrides(texts)
    choices = {key: value for key, value in pairs.items() if key in GROUPS}
    for group, name in choices.items():
        check_choice(group, name)
    fresh = compose_groups(tuple(sorted(choices.items()))) if choices else {}
    values = as_dict(config) | {group: dict(fresh[group]) for group in choices}
    options = {key: value for key, value in pairs.items() if key not in GROUPS}
    return _warned(build(override(fill(values), options)), pairs)


def _warned(config: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    check_backbone(config.model.backbone)
    for text in warnings_of(config, list(given)):
        print(f"warning: {text}", flush=True)
    return config


def recorded_trial(root: Path, name: str) -> Recorded:
    """Return a trial of a study by ``STUDY/TRIAL_ID``; the beginning of the identity will do.

    Raises:
        UserError: If there is no such trial, if its options cannot be told, or if a plug-in is missing.
    """
    study, separator, prefix = name.partition("/")
    if not separator or not prefix:
        raise UserError(f"{name!r}: expected STUDY/TRIAL_ID, as 'python -m sarx.status STUDY' prints it")
    folder = StudyFolder(find_study(root, study))
    events = read_events(folder.ledger)
    trial = Standing(events).resolve(prefix)
    opening = _opening_of(events, trial.trial_id)
    files = opening["code"]["files"] if opening else {}
    missing = [key[7:] for key in files if key.startswith("plugin/") and key[7:] not in plugins.loaded()]
    if missing:
        raise UserError(f"the study used plug-ins; give --plugin {' --plugin '.join(missing)}", where=name)
    plan = opening.get("plan", {}) if opening else {}
    threads, workers = plan.get("cpus_per_worker", 1), plan.get("num_workers", 1)
    config = _kept_config(folder.trial(trial.trial_id) / CONFIG)
    if config is None:
        config = _rebuilt_config(events, trial.trial_id, opening, threads, workers)
        print(f"{CONFIG} is missing; rebuilt from the ledger, and of the same identity", flush=True)
    epoch, metrics = _last_metrics(events, trial.trial_id)
    return Recorded(study, trial.trial_id, config, files, threads, epoch, metrics, workers)


def _opening_of(events: list[Event], name: str) -> dict[str, Any] | None:
    """Return the last start whose code identified a trial, else the last start."""
    codes = set()
    starts: list[dict[str, Any]] = []
    for event in events:
        if event["event"] == "study_opened":
            starts.append(json.loads(event["payload"]))
        elif event["event"] in ("proposed", "claimed") and event["trial_id"] == name:
            codes.add(json.loads(event.get("payload") or "{}").get("code"))
    own = [payload for payload in starts if payload["code"]["digest"] in codes]
    return next(reversed(own or starts), None)


def _kept_config(file: Path) -> TrainConfig | None:
    """Return the options that a trial wrote down; None if it did not."""
    if not file.exists():
        return None
    try:
        return build(read_source(file).values)
    except UserError as error:
        raise UserError(error.message, key=error.key, where=error.where or str(file)) from None


def _rebuilt_config(
    events: list[Event], name: str, opening: dict[str, Any] | None, threads: int, workers: int
) -> TrainConfig:
    """Return the options of a trial by the ledger, if they give its identity.

    Raises:
        UserError: If they do not, or the ledger does not hold them.
    """
    from sarx.data import fingerprint

    claims = [event for event in events if event["event"] in ("proposed", "claimed")]
    claim = next((event for event in reversed(claims) if event["trial_id"] == name), None)
    wrong = UserError(
        f"has no {CONFIG}, as trials of an older sarx, and the ledger gives no options of this identity; "
        "without --trial, give them as key=value",
        where=name,
    )
    if claim is None or opening is None:
        raise wrong
    plan, search = opening.get("plan", {}), claim["phase"] == SEARCH
    arms = {(arm["arm"], arm["level"]): arm["overrides"] for arm in opening["arms"]}
    pairs = parse_overrides(plan.get("base", ())) | arms.get((claim["arm"], claim["level"]), {})
    pairs |= (plan.get("overrides") or {}) if search else {}
    pairs |= unpack_parameters(claim["parameters"])
    pairs |= {"seed": claim["seed"], "role": "confirm" if claim["phase"] == CONFIRM else "search"}
    try:
        config = compose(pairs)
    except UserError as error:
        raise wrong from error
    data, code = fingerprint(config.data), opening["code"]["digest"]
    if trial_id(config, data_fingerprint=data, code=code, threads=threads, workers=workers) != name:
        raise wrong
    return config


def _last_metrics(events: list[Event], name: str) -> tuple[int, dict[str, float]]:
    """Return the last recorded epoch of a trial and its metrics; 0 without one that counts."""
    found: tuple[int, dict[str, float]] = (0, {})
    for event in events:
        if event.get("trial_id") != name:
            continue
        if event["event"] in ("epoch", "rung", "trial_finished"):
            found = (event["epoch"], unpack_metrics(event["metrics"]))
        elif event["event"] == "forgotten":
            found = (0, {})
    return found


def train_once(config: TrainConfig, root: Path, threads: int, recorded: Recorded | None = None) -> int:
    """Train in this process, print each epoch, write TensorBoard files and checkpoints.

    The same call continues.

    Args:
        config: What to train.
        root: Storage; results go into its folder of single trainings.
        threads: CPU threads.
        recorded: The trial of a study to compare with.

    Returns:
        1 if it diverged, else 0.

    Raises:
        UserError: For threads or a device that are not there.
    """
    if not 1 <= threads <= (os.cpu_count() or 1):
        raise UserError(f"{threads} is outside [1, {os.cpu_count()}]", where="--threads")
    folder = open_folder(root, SINGLE)
    import torch

    from sarx.training.loop import train
    from sarx.training.report import train_and_report

    if config.training.device == "cuda" and not torch.cuda.is_available():
        raise UserError("no GPU is visible here; use cpu", key="training.device")
    torch.set_num_threads(threads)
    name = announce(config, folder, threads, 1, recorded)
    host = train_and_report if config.role == "confirm" else train
    attempt = folder.attempt(name, 1)
    lacking = recorded.epoch or None if recorded is not None else None
    results = host(config, folder=attempt, resume=[attempt], name=name, replay_from=lacking)
    return follow(results, config, folder, name, recorded)


def announce(
    config: TrainConfig, folder: StudyFolder, threads: int, workers: int, recorded: Recorded | None
) -> str:
    """Print what will be trained, and how that compares with a trial of a study; return its identity."""
    from sarx.data import fingerprint

    data, code = fingerprint(config.data), training_code().digest
    name = trial_id(config, data_fingerprint=data, code=code, threads=threads, workers=workers)
    if recorded is not None:
        print("\n".join(compare_identity(recorded, name, config, threads, workers)), flush=True)
    write_config(folder.trial(name), as_dict(config), name, config.seed)
    print(f"trial {name}; results in {folder.trial(name)}", flush=True)
    return name


def follow(
    results: Iterable[Any], config: TrainConfig, folder: StudyFolder, name: str, recorded: Recorded | None
) -> int:
    """Print the results of a training and write its TensorBoard file; return 1 if it diverged, else 0.

    Args:
        results: See sarx.training.loop.EpochResult; only numbers are read of them.
        config: What is trained.
        folder: Of single trainings.
        name: Identity of the training.
        recorded: The trial of a study to compare with.
    """
    from sarx.tensorboard import Board

    board, seconds, diverged = Board(folder.tensorboard / name), 0.0, False
    found: dict[int, Mapping[str, float]] = {}
    for result in results:
        board.scalars(result.step, result.metrics, time.time())
        seconds += result.duration_s
        left = seconds / (len(found) + 1) * (config.training.epochs - result.epoch)
        print(f"epoch {result.epoch}/{config.training.epochs}  {shown(config, result.metrics)}  ", end="")
        print(f"about {left:.0f} s left", flush=True)
        found[result.epoch], diverged = result.metrics, result.diverged
    board.close()
    if recorded is not None:
        print("\n".join(compare_metrics(recorded, found)))
    print(f"results      {folder.trial(name)}\ntensorboard  {folder.tensorboard}   (just tensorboard train)")
    if diverged:
        print("diverged: the loss became non-finite; lower optim.lr", file=sys.stderr)
    return int(diverged)


def shown(config: TrainConfig, metrics: Mapping[str, float]) -> str:
    """Return the metrics that a line of progress shows: loss and score, in the end the reported score."""
    score = "miou" if config.data.task == "segmentation" else "mean_accuracy"
    keys = [key for key in ("train/loss", f"val/{score}", f"test/{score}") if key in metrics]
    return "  ".join(f"{key} {metrics[key]:.4f}" for key in keys)


# -------------------------------------------------------------------- beside the study's trial


def compare_identity(
    recorded: Recorded, name: str, config: TrainConfig, threads: int, workers: int = 1
) -> list[str]:
    """Return the identities of the study's trial and of this run, and why they differ if they do."""
    lines = [f"study's trial  {recorded.study}/{recorded.trial_id}"]
    if name == recorded.trial_id:
        return [*lines, f"this run       {name}: the same, for nothing that changes numbers differs"]
    old, new = _flat(recorded.config), _flat(config)
    reasons = [f"{key} {old[key]} -> {new[key]}" for key in old if key in new and old[key] != new[key]]
    reasons += [f"{file} changed" for file in changed_files(recorded.files, training_code().files)]
    if threads != recorded.threads:
        reasons.append(f"threads {recorded.threads} -> {threads}")
    if workers != recorded.workers:
        reasons.append(f"workers {recorded.workers} -> {workers}")
    if not reasons:
        reasons.append(f"neither code nor options: its {CONFIG} was edited, or the data are others")
    return [*lines, f"this run       {name}: another, for", *(f"  {reason}" for reason in reasons)]


def compare_metrics(recorded: Recorded, found: Mapping[int, Mapping[str, float]]) -> list[str]:
    """Return whether the metrics equal the recorded ones bit for bit, or which differ; times do not count."""
    if not recorded.epoch:
        return ["the study has no result of this trial to compare with"]
    if recorded.epoch not in found:
        return [f"epoch {recorded.epoch}, the study's last of this trial, did not run here: not compared"]
    old, new = (
        {key: float(value) for key, value in metrics.items() if not key.startswith("time/")}
        for metrics in (recorded.metrics, found[recorded.epoch])
    )
    differing = [key for key in dict.fromkeys([*old, *new]) if _bits(old.get(key)) != _bits(new.get(key))]
    after = f"after epoch {recorded.epoch}"
    if not differing:
        return [f"equal bit for bit: {len(old)} metrics {after} are those of the study"]
    lines = [f"{len(differing)} of {len({*old, *new})} metrics {after} differ (study's, this run's):"]
    lines += [f"  {key}  {old.get(key, '-')}  {new.get(key, '-')}" for key in differing[:SHOWN]]
    return lines + ([f"  and {len(differing) - SHOWN} more"] if len(differing) > SHOWN else [])


def _bits(value: float | None) -> str | None:
    """Return what tells two numbers apart: nan equals nan, and 0 is not -0."""
    return None if value is None else float(value).hex()


def _flat(config: TrainConfig) -> dict[str, Any]:
    """Return the options by dotted key."""
    found: dict[str, Any] = {}
    for group, part in as_dict(config).items():
        found |= (
            {f"{group}.{key}": item for key, item in part.items()}
            if isinstance(part, dict)
            else {group: part}
        )
    return found
