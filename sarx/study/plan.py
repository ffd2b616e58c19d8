"""What a study is going to do, in words, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sarx.study.design import Arm
from sarx.study.schema import Study
from sarx.study.space import describe


@dataclass(frozen=True)
class Timing:
    """Measured cost of one arm: seconds to build, per step, and per evaluation."""

    build_s: float
    step_s: float
    evaluation_s: float

    def trial_s(self, steps: int, epochs: int) -> float:
        """Return the seconds of one trial."""
        return self.build_s + steps * self.step_s + epochs * self.evaluation_s


def trials_of(study: Study, arm: Arm) -> tuple[int, int]:
    """Return how many (search, confirm) trials an arm has."""
    return (study.search.trials_per_arm if arm.space else 1), study.confirm.seeds


def describe_plan(study: Study, arms: list[Arm]) -> list[str]:
    """Return the lines of the plan: phases, arms, trials, epochs, resources, warnings."""
    search = sum(trials_of(study, arm)[0] for arm in arms)
    confirm = sum(trials_of(study, arm)[1] for arm in arms)
    lines = [f"study {study.study}: {study.question or 'no question stated'}"]
    lines += [
        f"  search   {search:4d} trials: {len(arms)} arms, sampler {study.search.sampler.name}, "
        f"scored on {study.objective.metric}, winner = {study.objective.mode} at the last epoch",
        f"  confirm  {confirm:4d} trials: the winner of each arm on {study.confirm.seeds} fresh seeds that "
        f"all arms share, reported on {study.report.primary}",
    ]
    resources = study.resources
    gpus = f", {resources.gpus_per_worker:g} GPU" if resources.gpus_per_worker else ""
    lines.append(f"  one trial occupies {resources.cpus_per_worker} CPU{gpus}")
    if study.search.parameters:
        lines.append("  searched:")
        width = max(map(len, study.search.parameters))
        for parameter in study.search.parameters.values():
            users = sum(parameter in arm.space for arm in arms)
            lines.append(
                f"    {parameter.key:<{width}}  {describe(parameter)}  in {users} of {len(arms)} arms"
            )
    return lines + describe_arms(study, arms) + describe_warnings(arms)


def describe_arms(study: Study, arms: list[Arm]) -> list[str]:
    """Return one line per arm."""
    lines = ["  arms:"]
    width = max(len(arm.key) for arm in arms)
    for arm in arms:
        search, confirm = trials_of(study, arm)
        training = arm.config.training
        mark = "  (reference)" if arm.name == study.ablation.reference else ""
        lines.append(
            f"    {arm.key:<{width}}  {search} + {confirm} trials of {training.epochs} epochs "
            f"({training.steps} steps), {len(arm.space)} parameters searched{mark}"
        )
    return lines


CONFOUNDERS: tuple[str, ...] = (
    "model.backbone",
    "model.feature_dim",
    "model.dropout",
    "model.decoder",
    "model.classifier",
)
CONFOUNDERS += ("optim.name", "training.batch_size")
"""Options that a reader does not expect to differ between the arms of a level."""


def describe_warnings(arms: list[Arm]) -> list[str]:
    """Return what the reader must know, once per arm name and text."""
    seen = dict.fromkeys((arm.name, text) for arm in arms for text in arm.warnings)
    lines = [f"  warning: arm {name}: {text}" for name, text in seen]
    tuned = [arm for arm in arms if arm.space]
    for key in ("optim.lr", "optim.weight_decay"):
        without = [arm.name for arm in tuned if key not in {parameter.key for parameter in arm.space}]
        if without:
            names = ", ".join(dict.fromkeys(without))
            lines.append(f"  warning: {key} is not tuned in {names}; how much it favours an arm is not known")
    for key in CONFOUNDERS:
        group, name = key.split(".")
        levels = {arm.level for arm in arms}
        used = {
            level: {getattr(getattr(a.config, group), name) for a in arms if a.level == level}
            for level in levels
        }
        if any(len(values) > 1 for values in used.values()):
            lines.append(
                f"  warning: arms differ in {key}; a difference between them is not the regularizer's alone"
            )
    return lines


def describe_cost(study: Study, arms: list[Arm], timings: Mapping[str, Timing], slots: int) -> list[str]:
    """Return the estimated hours from a timed step of each arm, and what the study could detect.

    Args:
        study: The study.
        arms: Its arms.
        timings: Arm key -> measured cost.
        slots: Trials that run at once.
    """
    total = 0.0
    lines = ["  measured on this machine (one step and one evaluation of each arm, one trial at a time):"]
    width = max(len(arm.key) for arm in arms)
    for arm in arms:
        timing = timings[arm.key]
        seconds = timing.trial_s(arm.config.training.steps, arm.config.training.epochs)
        total += seconds * sum(trials_of(study, arm))
        lines.append(f"    {arm.key:<{width}}  {1000 * timing.step_s:6.1f} ms/step  {seconds:6.1f} s/trial")
    hours = total / 3600
    lines.append(f"  estimated: {hours:.2f} trial-hours, {hours / slots:.2f} hours with {slots} at a time")
    return lines
