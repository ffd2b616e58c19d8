"""What trainings occupy: from a command line, and whether a training goes with it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from sarx.config.compose import parse_overrides
from sarx.config.errors import UserError, nearest
from sarx.config.schema.training import TrainingConfig
from sarx.study.schema import Resources

GROUP = "resources."


def split_resources(
    texts: Sequence[str], before: Mapping[str, Any], threads: int | None
) -> tuple[list[str], Resources]:
    """Return the ``key=value`` texts that are not of ``resources``, and the resources.

    Args:
        texts: All of them.
        before: Resources where the texts do not say.
        threads: ``--threads``, another way to say ``resources.cpus_per_worker``; None if it was not given.

    Raises:
        UserError: For an unknown resource or a value outside its range.
    """
    own = [text for text in texts if text.startswith(GROUP)]
    given = {key.removeprefix(GROUP): value for key, value in parse_overrides(own).items()}
    known = [item.name for item in dataclasses.fields(Resources)]
    for key in given:
        if key not in known:
            raise UserError(f"unknown key; {nearest(key, known)}", key=f"{GROUP}{key}")
    if threads is not None:
        if "cpus_per_worker" in given:
            raise UserError("resources.cpus_per_worker says the same; give one of the two", where="--threads")
        if threads < 1:
            raise UserError(f"{threads} is outside [1, {os.cpu_count()}]", where="--threads")
        given["cpus_per_worker"] = threads
    return [text for text in texts if text not in own], Resources(**{**before, **given})


def check_training(training: TrainingConfig, resources: Resources, whose: str = "") -> None:
    """Refuse GPUs that are reserved and not used, or the reverse, and a batch that cannot be shared equally.

    Args:
        training: How one training runs.
        resources: What it occupies.
        whose: Named after the training's options in the message.

    Raises:
        UserError: With the key.
    """
    if (training.device == "cuda") != (resources.gpus_per_worker > 0):
        raise UserError(
            f"{resources.gpus_per_worker:g} GPUs do not go with training.device={training.device}{whose}",
            key="resources.gpus_per_worker",
        )
    if training.batch_size % (resources.num_workers * training.accumulation):
        raise UserError(
            f"training.batch_size={training.batch_size}{whose} cannot be shared equally by "
            f"{resources.num_workers} workers x {training.accumulation} accumulated batches",
            key="resources.num_workers",
        )
