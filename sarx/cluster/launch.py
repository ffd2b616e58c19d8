"""From a checked study to a running one: the open ledger, the identity of its trials, the engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from sarx.cluster.driver import Leaving, run_study, stopping
from sarx.cluster.limits import unwritable
from sarx.cluster.resources import check_reachable
from sarx.cluster.transfer import publishing
from sarx.config import plugins
from sarx.config.errors import UserError, nearest
from sarx.config.schema import TrainConfig, as_dict
from sarx.search.engine import Engine
from sarx.search.mirror import Mirror
from sarx.search.propose import check, confounding
from sarx.search.rungs import rung_epochs
from sarx.study.design import Arm
from sarx.study.identity import training_code, trial_id
from sarx.study.ledger_at import open_ledger
from sarx.study.load import located
from sarx.study.opening import last_opening, open_study, opened_payload, settle_code
from sarx.study.plan import Timing, describe_cost
from sarx.study.power import describe_power
from sarx.study.schema import COST, Study
from sarx.study.search_checks import search_config
from sarx.study.since import changes, describe_changes
from sarx.study.source import Source
from sarx.study.storage import open_study_folder
from sarx.study.store import store_errors
from sarx.study.urls import Place
from sarx.tensorboard import declare

JUDGED = 64
"""Proposals that the plan judges at most; it is quadratic in them."""
CONFOUNDED = 0.6
"""Correlation of two parameters over the proposals above which the plan says what that means."""


class Options(Protocol):
    """What the command line says of a run."""

    address: str | None
    on_code_change: str | None
    phase: str | None
    optuna_storage: str | None


def start(
    study: Study, arms: list[Arm], root: Place, options: Options, only_arms: frozenset[str] | None = None
) -> int:
    """Open the study's ledger and run what is left; return the exit code.

    Args:
        study: The study.
        arms: Its arms.
        root: Where the results lie.
        options: The command line.
        only_arms: Names of the arms to run now; None: all.
    """
    target = options.address or os.environ.get("RAY_ADDRESS")
    if target:
        check_reachable(target)
    folder = open_study_folder(root, study.study)
    try:
        with store_errors():
            ledger = open_ledger(folder.place / "ledger")
    except OSError as error:
        raise unwritable(folder, error) from None
    with (
        store_errors(),
        ledger,
        stopping(Leaving(ledger, folder)),
        publishing(folder, fresh=not ledger.events) as publish,
    ):
        code, kept = settle_code(ledger.events, training_code(), options.on_code_change)
        before = last_opening(ledger.events)

        payload = opened_payload(study, arms, code, kept, describe_scores(arms))
        epochs = max(search_config(study, arm).training.epochs for arm in arms)
        payload["plan"]["rungs"] = list(rung_epochs(study.search.scheduler, epochs))
        try:
            open_study(ledger, payload, folder.root / "study.lock")
            (folder.root / "study.yaml").write_text(study.file, encoding="utf-8")
            declare(
                folder.tensorboard,
                [study.objective.metric, study.report.primary],
                ["arm", "level", "phase", "index", *study.search.parameters],
                time.time(),
            )
            publish()
            engine = Engine(
                study,
                arms,
                ledger,
                identity_under(study, code.digest),
                code.digest,
                only_arms=only_arms,
                only_phase=options.phase,
            )
        except OSError as error:
            raise unwritable(folder, error) from None
        for line in describe_changes(changes(before, payload), *engine.finished_trials):
            print(line, flush=True)
        mirror = Mirror(options.optuna_storage, study, arms) if options.optuna_storage else None
        return run_study(study, arms, engine, folder, options.address, mirror)


def identity_under(study: Study, code: str) -> Callable[[TrainConfig], str]:
    """Return what gives the trials of a study their identity, with training code of this digest."""
    from sarx.data import fingerprint

    def identify(config: TrainConfig) -> str:
        return trial_id(
            config,
            data_fingerprint=fingerprint(config.data),
            code=code,
            threads=study.resources.cpus_per_worker,
            workers=study.resources.num_workers,
        )

    return identify


def check_metrics(study: Study, arms: list[Arm], source: Source) -> None:
    """Refuse a metric that no trial will have.

    Raises:
        UserError: Naming the nearest one.
    """
    from sarx.data import describe, score_names

    for arm in arms:
        names = score_names(describe(arm.config.data, 0))
        wanted = [("objective.metric", study.objective.metric, "val")]
        wanted += [
            (f"objective.also.{i}.metric", goal.metric, "val")
            for i, goal in enumerate(study.objective.also)
            if goal.metric != COST
        ]
        wanted += [("report.primary", study.report.primary, "test")]
        wanted += [("report.secondary", name, "test") for name in study.report.secondary]
        for key, metric, split in wanted:
            known = [f"{split}/{name}" for name in names]
            if metric not in known:
                with located(source):
                    raise UserError(
                        f"trials have no metric called {metric!r}; {nearest(metric, known)}", key=key
                    )


def check_samplers(study: Study, arms: list[Arm], source: Source) -> None:
    """Refuse a sampler that cannot serve the space of an arm.

    Raises:
        UserError: At ``search.sampler``.
    """
    if not study.search.waits or study.search.scope == "none":
        return
    for arm in arms:
        try:
            if arm.space:
                check(arm.space, study.search.sampler.name, batch=study.search.batch)
        except ValueError as error:
            with located(source):
                raise UserError(f"arm {arm.key!r}: {error}", key="search.sampler") from None


def describe_search(study: Study, arms: list[Arm]) -> list[str]:
    """Say how far the proposals let the effects of two parameters be told apart."""
    space = tuple(study.search.parameters.values())
    sampler = study.search.sampler.name
    planned = study.search.sampler.startup if study.search.waits else study.search.trials_per_arm
    trials = min(planned, JUDGED)
    found = [
        confounding(space, own, sampler, seed=study.seed, trials=trials)
        for own in dict.fromkeys(arm.space for arm in arms)
    ]
    largest, first, second = max(found)
    if not first:
        return []
    line = f"  proposals: largest correlation of two parameters of an arm {largest:.2f} ({first}, {second})"
    if largest > CONFOUNDED:
        line += (
            "\n  warning: their effects cannot be told apart; take more trials_per_arm or fewer parameters"
        )
    return [line]


def describe_scores(arms: list[Arm]) -> str:
    """Say what the mean score averages over, for the caption of the table."""
    from sarx.data import describe

    texts = []
    for arm in arms:
        data = describe(arm.config.data, 0)
        name = "miou" if data.task == "segmentation" else "mean_accuracy"
        apart = [c for i, c in enumerate(data.class_names) if i not in data.score_classes]
        rest = f"; {', '.join(apart)} apart" if apart else ""
        texts.append(f"{name} is the mean over {len(data.score_classes)} of {data.num_classes} classes{rest}")
    return "; ".join(dict.fromkeys(texts))


def share_of(arm: Arm, workers: int) -> dict[str, Any]:
    """Return the options of an arm with the batch that one of its workers sees."""
    plain = as_dict(arm.config)
    plain["training"]["batch_size"] = max(2, plain["training"]["batch_size"] // workers)
    return plain


def dry_run(study: Study, arms: list[Arm]) -> int:
    """Time a step of every arm in a process of its own and print hours and power."""
    threads, workers = study.resources.cpus_per_worker, study.resources.num_workers
    request = {
        "threads": threads,
        "configs": {arm.key: share_of(arm, workers) for arm in arms},
        "plugins": list(plugins.loaded()),
    }
    done = subprocess.run(
        [sys.executable, "-m", "sarx.training.timing"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode != 0:
        raise UserError(f"timing a step of each arm failed:\n{done.stderr.strip()}", where="--dry-run")
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    for key, answer in answers.items():
        if isinstance(answer, dict):
            raise UserError(answer["error"], where=f"arm {key}")
    timings = {key: Timing(build, step, score / workers) for key, (build, step, score) in answers.items()}
    slots = max(1, len(os.sched_getaffinity(0)) // (threads * workers))
    print("\n".join(describe_cost(study, arms, timings, slots)))
    rows = len(arms) - sum(arm.name == study.ablation.reference for arm in arms)
    looks = max(1, len(study.confirm.looks))
    print(describe_power(study.confirm.seeds, rows, study.report.primary, looks))
    return 0
