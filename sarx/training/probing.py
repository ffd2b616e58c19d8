"""Predictions of a study's finished confirm trials on a few report images, written into the study."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sarx.config.errors import UserError, nearest
from sarx.config.schema import TrainConfig
from sarx.data import load_split, split_names
from sarx.study.ledger_schema import CONFIRM
from sarx.study.provenance import CONFIG
from sarx.study.standing import FINISHED, Standing, Use
from sarx.study.storage import StudyFolder
from sarx.study.studies import look, next_command, state
from sarx.training.described import data_of
from sarx.training.probed_images import chosen_images, content_key, predicted_images, read_npz, write_npz
from sarx.training.scoring import load_module, options_of

FOLDER, PREDICTIONS = "probe", "predictions.npz"
FORMAT = 1
"""Raised whenever files written before cannot be used: then trials are probed anew."""

MOST_IMAGES = 64


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        arms: Names; None: all.
        seeds: The first so many confirm seeds.
        images: Report images.
        overrides: ``key=value`` over the trials' options, of ``data.*`` and ``training.device``.
        threads: CPU threads.
    """

    arms: list[str] | None
    seeds: int
    images: int
    overrides: tuple[str, ...] = ()
    threads: int = 1

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UserError: If one is out of range.
        """
        limits = {"seeds": 10**6, "images": MOST_IMAGES, "threads": os.cpu_count() or 1}
        for name, most in limits.items():
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"{getattr(self, name)} is outside [1, {most}]", where=f"--{name}")


@dataclass
class Counts:
    """What became of the trials."""

    new: int = 0
    there: int = 0
    left_out: list[str] = field(default_factory=list)


def probe_study(folder: Path, wanted: Wanted) -> Counts:
    """Predict the same few report images with every wanted trial that has its weights; print what is done.

    What a trial has already is kept. Trials without weights, or with such as do not fit, are named and left
    out.

    Args:
        folder: The study's folder.
        wanted: Which trials and images.

    Raises:
        UserError: If no such trial has finished, an arm is unknown, or the options do not fit.
    """
    torch.set_num_threads(wanted.threads)
    trials = wanted_trials(folder, wanted)
    print(
        f"{len(trials)} finished confirm trials of {folder.name}, {wanted.images} report images", flush=True
    )
    counts, choices = Counts(), dict[str, list[int]]()
    started, longest = time.monotonic(), max(len(label) for label in trials.values())
    for number, (trial_id, label) in enumerate(trials.items(), start=1):
        said = _probe_trial(StudyFolder(folder), trial_id, wanted, choices)
        if said is None:
            counts.there += 1
            continue
        counts.new += not said
        if said:
            counts.left_out.append(trial_id)
        left = (time.monotonic() - started) / number * (len(trials) - number)
        rest = said or (f"about {left:.0f} s left" if number < len(trials) else "done")
        print(
            f"[{number:>{len(str(len(trials)))}}/{len(trials)}] {label:<{longest}}  {trial_id}  {rest}",
            flush=True,
        )
    kept = f", {counts.there} were there" if counts.there else ""
    out = f", {len(counts.left_out)} left out (see above)" if counts.left_out else ""
    print(f"results      {folder / FOLDER} ({counts.new} new{kept}{out})")
    print("This looked at the report split: choose nothing by it.")
    return counts


def wanted_trials(folder: Path, wanted: Wanted) -> dict[str, str]:
    """Return identity -> label of the wanted trials that have finished, by seed, then in plan order.

    Raises:
        UserError: If there is none, or an arm is unknown.
    """
    standing, who = look(folder)
    uses = [use for use in standing.current if use.phase == CONFIRM]
    known = [row["arm"] for row in (standing.opening or {}).get("arms", ())]
    for arm in wanted.arms or ():
        if arm not in known:
            raise UserError(f"the study has no arm {arm!r}; {nearest(arm, known)}", where="--arms")
    found: dict[str, str] = {}
    for use in uses:
        if use.index < wanted.seeds and (wanted.arms is None or use.arm in wanted.arms):
            _add(found, standing, use)
    if not found:
        word = state(standing, who)
        command = next_command(standing, word, folder.name, bool(standing.failed()), "")
        raise UserError(
            f"no such confirm trial has finished yet ({word}); next: {command}", where=folder.name
        )
    return found


def _add(found: dict[str, str], standing: Standing, use: Use) -> None:
    """Add a claim's trial if it has finished; one that serves several arms stands once."""
    if standing.status(use) == FINISHED:
        trial_id = standing.claims[use]
        found[trial_id] = f"{found[trial_id]}, {use.label}" if trial_id in found else use.label


def _probe_trial(
    study: StudyFolder, trial_id: str, wanted: Wanted, choices: dict[str, list[int]]
) -> str | None:
    """Probe one trial: '' when done, None if it was done before, or why it is left out."""
    weights = final_weights(study.trial(trial_id))
    if weights is None:
        return "left out: its weights are gone"
    target = study.root / FOLDER / trial_id / PREDICTIONS
    record = {
        "format": np.array(FORMAT),
        "count": np.array(wanted.images),
        "options": np.array(sorted(wanted.overrides), dtype=np.str_),
        "weights": np.array(f"{weights.parent.name}/{weights.name}"),
    }
    if _is_there(target, record):
        return None
    if not (study.trial(trial_id) / CONFIG).is_file():
        return f"left out: it has no {CONFIG}"
    config, device = _options(weights, wanted.overrides)
    data = data_of(config)
    split = load_split(config.data, config.seed, split_names(config.data)[1])
    try:
        module = load_module(weights, config, data).to(device)
    except UserError as error:
        return f"left out: {error}"
    source = f"{data.fingerprint} {len(split)}"
    if source not in choices:
        choices[source] = chosen_images(split, data, wanted.images)
    shown, predictions = predicted_images(module, split, data, choices[source], device)
    images = f"images-{content_key(shown)}.npz"
    if read_npz(study.root / FOLDER / images) is None:
        write_npz(study.root / FOLDER / images, shown)
    write_npz(target, record | {"images": np.array(images), "indices": shown["indices"]} | predictions)
    return ""


def _is_there(target: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a file holds what is asked for, and the images that go with it are there."""
    found = read_npz(target)
    return (
        found is not None
        and all(np.array_equal(found.get(name, np.array(None)), value) for name, value in record.items())
        and read_npz(target.parent.parent / str(found["images"])) is not None
    )


def _options(weights: Path, overrides: tuple[str, ...]) -> tuple[TrainConfig, torch.device]:
    """Return a trial's options and where to compute: on its device, or the CPU where that is not there.

    Raises:
        UserError: If the texts do not fit.
    """
    config = options_of(weights, overrides)[1]
    device = torch.device(config.training.device)
    missing = device.type == "cuda" and not torch.cuda.is_available()
    return config, torch.device("cpu") if missing else device


def final_weights(trial: Path) -> Path | None:
    """Return the last final weights of a trial's highest attempt that left any; None if there are none."""
    found = [(_number(path.parent.name), _number(path.stem), path) for path in trial.glob("*/weights-*.pt")]
    return max(found, default=(0, 0, None))[2]


def _number(text: str) -> int:
    match = re.search(r"\d+$", text)
    return int(match.group()) if match else 0
