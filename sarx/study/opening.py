"""The record of a start: what the study asks, with which code and versions."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sarx.config.errors import UserError
from sarx.study.design import Arm
from sarx.study.identity import PACKAGE, Code, changed_files
from sarx.study.ledger import Event, Ledger, of_kind
from sarx.study.ledger_schema import CONFIRM
from sarx.study.provenance import provenance, versions
from sarx.study.schema import Study
from sarx.study.search_options import Search
from sarx.study.seeds import derive
from sarx.study.space import as_range, describe


def opened_payload(
    study: Study, arms: list[Arm], code: Code, kept: list[str], scores: str = ""
) -> dict[str, Any]:
    """Return what ``study_opened`` records but its provenance; see OPENED_KEYS of the ledger's schema."""
    return {
        "study": study.study,
        "question": study.question,
        "file": study.file,
        "objective": {
            "metric": study.objective.metric,
            "mode": study.objective.mode,
            **({"also": list(map(asdict, study.objective.also))} if study.objective.also else {}),
        },
        "report": {
            "primary": study.report.primary,
            "smallest_effect": study.report.smallest_effect,
            "secondary": study.report.secondary,
            **({"orientation": orientation} if (orientation := study.report.orientation) else {}),
            **({"cited": list(map(asdict, study.report.cited))} if study.report.cited else {}),
        },
        "reference": study.ablation.reference,
        "arms": [
            {
                "arm": arm.name,
                "level": arm.level,
                "parameters": [parameter.key for parameter in arm.space],
                "overrides": arm.overrides,
                "warnings": list(arm.warnings),
                **({"components": dict(arm.levels_of)} if arm.levels_of else {}),
                **({"takes": list(arm.takes)} if arm.takes else {}),
            }
            for arm in arms
        ],
        "trials_per_arm": study.search.trials_per_arm if study.search.scope != "none" else 1,
        "seeds": study.confirm.seeds,
        **({"looks": list(study.confirm.looks)} if study.confirm.looks else {}),
        "confirm_seeds": [derive(study.seed, CONFIRM, k) for k in range(study.confirm.seeds)],
        "plan": {
            "seed": study.seed,
            "sampler": study.search.sampler.name,
            "space": {key: describe(parameter) for key, parameter in study.search.parameters.items()},
            "ranges": {key: as_range(parameter) for key, parameter in study.search.parameters.items()},
            "base": study.base,
            **({"design": study.ablation.design} if study.ablation.design != "explicit" else {}),
            "cpus_per_worker": study.resources.cpus_per_worker,
            "gpus_per_worker": study.resources.gpus_per_worker,
            **({"num_workers": n} if (n := study.resources.num_workers) > 1 else {}),
            "max_failures": study.max_failures,
            **terms(study.search),
        },
        "scores": scores,
        "steps": arms[0].config.training.steps,
        "selection": "report" if arms[0].config.data.selection == "report" else "val",
        **({"held_out": True} if getattr(arms[0].config.data, "held_out", False) else {}),
        "budget": study.budget,
        "code": {"digest": code.digest, "files": dict(code.files), "kept": kept},
        "versions": versions(),
        "command": shlex.join(["python", "-m", "sarx.tune", *sys.argv[1:]]),
    }


def terms(search: Search) -> dict[str, Any]:
    """Return the terms of the search by their name in the study file; of some those alone that are not plain.

    Those that decide which recorded trials count are always there: after a change back to the plain search
    their absence would be taken for an older ledger's.
    """
    found: dict[str, Any] = {
        "repeats": search.repeats,
        "scheduler": asdict(search.scheduler) if search.scheduler.name != "none" else {"name": "none"},
        "finalists": asdict(search.finalists) if search.finalists.top else {"top": 0},
    }
    if search.waits:
        found["startup"] = search.sampler.startup
    if search.waits or search.scheduler.name != "none":
        found["batch"] = search.batch
    if search.scope == "shared":
        found |= {"scope": "shared", "tune_on": search.tune_on}
    if search.overrides:
        found["overrides"] = dict(search.overrides)
    if not search.reproducible:
        found["reproducible"] = False
    return found


def last_opening(events: list[Event]) -> Mapping[str, Any] | None:
    """Return the payload of the last start, or None."""
    openings = list(of_kind(events, "study_opened"))
    return json.loads(openings[-1]["payload"]) if openings else None


def settle_code(events: list[Event], code: Code, choice: str | None) -> tuple[Code, list[str]]:
    """Decide which code identifies the trials when finished ones were trained by other code.

    Args:
        events: Events of the ledger.
        code: The code on disk.
        choice: ``--on-code-change``: keep, rerun or None.

    Returns:
        The code to identify trials with, and the files that were kept in spite of a change.

    Raises:
        UserError: If finished trials exist, their code differs, and no choice was made.
    """
    opening = last_opening(events)
    if opening is None:
        return code, []
    old = Code(opening["code"]["digest"], opening["code"]["files"])
    finished = sum(1 for _ in of_kind(events, "trial_finished"))
    changed = changed_files(old.files, code.files)
    if not changed or not finished:
        return code, []
    if choice is None:
        shown = ", ".join(changed[:6]) + (", ..." if len(changed) > 6 else "")
        raise UserError(
            f"{finished} finished trials were trained by other code (changed: {shown}). Choose "
            "--on-code-change keep (use them as they are; the caption says so) or --on-code-change rerun "
            "(train all again)"
        )
    return (old, changed) if choice == "keep" else (code, [])


def open_study(ledger: Ledger, payload: Mapping[str, Any], lock_file: Path) -> None:
    """Record a start and where it runs; the first one also writes ``study.lock``: what was promised."""
    if not lock_file.exists():
        promise = {key: value for key, value in payload.items() if key not in ("file", "code", "command")}
        lock_file.write_text(
            json.dumps({"locked": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **promise}, indent=1)
            + "\n",
            encoding="utf-8",
        )
    here = provenance(PACKAGE.parent, lock_file.parent / "provenance")
    ledger.append("study_opened", sync=True, payload=json.dumps({**payload, "provenance": here}))
