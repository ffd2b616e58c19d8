"""Which studies there are, how they stand in words, and what can be asked of one: retry, forget."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

from sarx.config.errors import UserError, nearest
from sarx.study.ledger import Holder, Ledger
from sarx.study.ledger_at import holder, open_ledger, read_events
from sarx.study.ledger_schema import CONFIRM, FAILURES
from sarx.study.standing import RUNNING, STATUSES, WAITING, Standing, Trial
from sarx.study.store_object import store_of
from sarx.study.urls import Place, Url

NEVER_RAN = "never ran"
P = TypeVar("P", bound=Place)


def find_study(root: P, name: str | None) -> P:
    """Return the folder of a study; without a name, of the one whose ledger changed last.

    Raises:
        UserError: If there is no study, or none of this name.
    """
    changed = {folder.name: _changed(folder) for folder in study_folders(root)}
    if not changed:
        raise UserError(
            f"no study in {root}; start one with 'python -m sarx.tune STUDY.yaml', or name the folder of the "
            "results by --storage or SARX_STORAGE"
        )
    if name is None:
        name = max(changed, key=lambda known: changed[known])
    elif name not in changed:
        raise UserError(f"no study is called {name!r} in {root}; {nearest(name, changed)}")
    return cast(P, root / name)


def _changed(folder: Place) -> float:
    if isinstance(folder, Url):
        return max((item.modified for item in store_of(folder).listing("ledger")), default=0.0)
    return max((file.stat().st_mtime for file in (folder / "ledger").glob("*.ndjson")), default=0.0)


def study_folders(root: Place) -> Sequence[Place]:
    """Return the folders that hold a ledger."""
    if isinstance(root, Url):
        return [root / name for name in store_of(root).folders() if store_of(root / name).listing("ledger")]
    return sorted(path.parent for path in root.glob("*/ledger") if path.is_dir())


def describe_studies(root: Place) -> list[str]:
    """Return one line for each study: name, state, trials decided of planned, age of the last event."""
    rows = []
    for folder in study_folders(root):
        try:
            standing, who = look(folder)
        except UserError as error:
            rows.append((folder.name, "unreadable", str(error)))
            continue
        counts = standing.counts(driven=is_alive(who)).values()
        total = sum(count.total() for count in counts)
        open_ = sum(count[WAITING] + count[RUNNING] for count in counts)
        last = f", last event {age(standing.last)}" if standing.last else ""
        text = f"{total - open_} of {total} trials decided{last}" if total else ""
        rows.append((folder.name, state(standing, who), text))
    wide = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    return [f"{name:<{wide[0]}}  {word:<{wide[1]}}  {text}".rstrip() for name, word, text in rows]


def describe_study(folder: Place, storage: str = "") -> list[str]:
    """Return what there is to know of one study: state, counts, failures, the next command.

    Args:
        folder: The study's folder.
        storage: ``--storage DIR`` where the next command needs it.
    """
    standing, who = look(folder)
    word = state(standing, who)
    by = f" by {who}" if who and who.alive else f"; {who} ended without a word" if who else ""
    lines = [f"{folder.name}: {word}{by}"]
    if standing.opening is not None:
        lines.append(f"  {standing.opening['question'] or 'no question stated'}")
        lines.append(f"  last event {age(standing.last)}")
        if standing.leaving is not None:
            lines.append(f"  last stopped {age(standing.leaving[0])}: {standing.leaving[1]}")
    counts = standing.counts(driven=is_alive(who))
    if counts:
        lines.append("  " + " " * 9 + "".join(f"{status:>15}" for status in STATUSES) + f"{'of':>7}")
    for phase, count in counts.items():
        cells = "".join(f"{count[status]:>15}" for status in STATUSES)
        lines.append(f"  {phase:<9}{cells}{count.total():>7}")
    failed = standing.failed()
    if failed:
        kinds = Counter(trial.kind for trial in failed)
        lines.append(
            "  failed: " + ", ".join(f"{n} {kind} ({FAILURES.get(kind, '?')})" for kind, n in kinds.items())
        )
    for trial in failed:
        lines.append(
            f"    {labels(trial)}  {trial.trial_id}  {trial.kind}: {' '.join(trial.reason.split())[:300]}"
        )
        lines.append(f"      {folder / 'trials' / trial.trial_id / 'log.txt'}")
    return [*lines, f"  next: {next_command(standing, word, folder.name, bool(failed), storage)}"]


def look(folder: Place) -> tuple[Standing, Holder | None]:
    """Return where a study stands and who holds it; changes nothing.

    Raises:
        UserError: If its ledger is damaged.
    """
    return Standing(read_events(folder / "ledger")), holder(folder / "ledger")


def is_alive(who: Holder | None) -> bool:
    """Return whether a driver runs the study."""
    return who is not None and who.alive


def state(standing: Standing, who: Holder | None) -> str:
    """Return running, stopped, finished or never ran."""
    if is_alive(who):
        return "running"
    if standing.opening is None:
        return NEVER_RAN
    waiting = sum(count[WAITING] for count in standing.counts(driven=False).values())
    return "finished" if standing.ended and not waiting else "stopped"


def labels(trial: Trial) -> str:
    """Return what a trial is for, in words."""
    return ", ".join(use.label for use in trial.uses) or "nothing that the study holds now"


def next_command(standing: Standing, word: str, name: str, failed: bool, storage: str) -> str:
    """Return what to type next."""
    if word == NEVER_RAN or standing.opening is None:
        return "python -m sarx.tune STUDY.yaml"
    if word == "running":
        return f"just tensorboard {name}"
    if failed:
        return " ".join(filter(None, ("python -m sarx.status", storage, name, "--retry-failed")))
    return f"just analyze {name}" if word == "finished" else str(standing.opening["command"])


def age(moment: float) -> str:
    """Return how long ago a time was, in its largest unit."""
    seconds = max(0.0, time.time() - moment)
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


# -------------------------------------------------------------------- what can be asked of it


def retry_failed(folder: Place) -> list[str]:
    """Let the trials that failed for good run again; say what the next run does.

    Raises:
        UserError: If a driver runs the study.
    """
    with taken(folder) as (ledger, standing):
        failed = standing.failed()
        for trial in failed:
            payload = json.dumps({"reason": "--retry-failed"})
            ledger.append("retried", trial_id=trial.trial_id, payload=payload)
        ledger.sync()
    if not failed:
        return ["no trial has failed for good; nothing was changed"]
    lines = [f"  {labels(trial)}  {trial.trial_id}" for trial in failed]
    return ["the next run continues these from their last checkpoints:", *lines, _run_again(standing)]


def forget(folder: Place, prefix: str, reason: str) -> list[str]:
    """Let the results of one trial count no longer; nothing is deleted; say what the next run does.

    Args:
        folder: The study's folder.
        prefix: How the identity of the trial begins.
        reason: Why; it stands in the ledger.

    Raises:
        UserError: If there is no such trial, if it has not run, or if a driver runs the study.
    """
    with taken(folder) as (ledger, standing):
        trial = standing.resolve(prefix)
        if trial.attempts == 0:
            raise UserError("has not run; there is nothing to forget", key=trial.trial_id)
        payload = json.dumps({"reason": reason})
        ledger.append("forgotten", sync=True, trial_id=trial.trial_id, payload=payload)
    lines = [f"{trial.trial_id} ({labels(trial)}; {trial.status}) does not count any more"]
    lines.append(f"  its files stay in {folder / 'trials' / trial.trial_id}")
    if trial.uses:
        lines.append("the next run trains it from the start, as a new attempt")
    if any(use.phase != CONFIRM for use in trial.uses):
        lines.append("  if its arm then has another winner, that one is confirmed")
    return [*lines, _run_again(standing)]


@contextmanager
def taken(folder: Place) -> Iterator[tuple[Ledger, Standing]]:
    """Hold the study while something is written to its ledger.

    Raises:
        UserError: If a driver runs it, or it has never run.
    """
    who = holder(folder / "ledger")
    if who is not None and who.alive:
        raise UserError(
            f"is running ({who}); stop it first (Ctrl-C, or kill -TERM {who.pid}), then give this "
            "command again",
            where=folder.name,
        )
    if not read_events(folder / "ledger"):
        raise UserError("has never run", where=folder.name)
    with open_ledger(folder / "ledger") as ledger:
        yield ledger, Standing(ledger.events)


def _run_again(standing: Standing) -> str:
    return f"run it: {standing.opening['command']}" if standing.opening else "run it"
