"""What a study is going to do, in words, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sarx.study.components import describe_design
from sarx.study.design import Arm
from sarx.study.plan_search import describe_batch as describe_batch
from sarx.study.plan_search import describe_sampler, describe_search, names_of, search_warnings
from sarx.study.plan_search import describe_scheduler as describe_scheduler
from sarx.study.schema import Limits, Study
from sarx.study.search_checks import search_config
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


def trials_of(study: Study, arm: Arm) -> tuple[int, int, int]:
    """Return how many (search, finalist, confirm) trials an arm has.

    An arm that takes its parameters from another has no search; one with nothing to search runs its default
    once.
    """
    search = study.search
    if not arm.space:
        return (0 if takes_from(study, arm) else 1), 0, study.confirm.seeds
    finalists = search.finalists.top * search.finalists.seeds * search.repeats
    return search.trials_per_arm * search.repeats, finalists, study.confirm.seeds


def takes_from(study: Study, arm: Arm) -> str:
    """Return the arm that is tuned in an arm's place under ``scope: shared``; empty if it is tuned itself."""
    return study.search.tune_on if study.search.scope == "shared" and arm.name != study.search.tune_on else ""


def describe_plan(study: Study, arms: list[Arm]) -> list[str]:
    """Return the lines of the plan: phases, arms, trials, epochs, resources, warnings."""
    search, finalists, confirm = (
        sum(counts) for counts in zip(*(trials_of(study, a) for a in arms), strict=True)
    )
    tuned = len({arm.key for arm in arms if not takes_from(study, arm)})
    lines = [f"study {study.study}: {study.question or 'no question stated'}"]
    lines += describe_design(study.ablation)
    lines.append(
        f"  search   {search:4d} trials: {tuned} arm{'s' * (tuned > 1)}, sampler {describe_sampler(study)}, "
        f"scored on {study.objective.metric}, winner = {study.objective.mode} at the last epoch"
    )
    lines += describe_search(study)
    if finalists:
        chosen = study.search.finalists
        lines.append(
            f"  finalist {finalists:4d} trials: the best {chosen.top} of each search on {chosen.seeds} seeds "
            "before one is chosen"
        )
    lines.append(
        f"  confirm  {confirm:4d} trials: the winner of each arm on {study.confirm.seeds} fresh seeds that "
        f"all arms share, reported on {study.report.primary}"
    )
    resources = study.resources
    gpus = f", {resources.gpus_per_worker:g} GPU" if resources.gpus_per_worker else ""
    each = f"{resources.cpus_per_worker} CPU{gpus}"
    if resources.num_workers > 1:
        fewer = f", or as few as {resources.min_workers}" if resources.min_workers else ""
        each = f"{resources.num_workers} workers{fewer} with {each} each"
    lines.append(f"  one trial occupies {each}")
    lines += describe_limits(study.limits) + describe_space(study, arms) + describe_arms(study, arms)
    return lines + search_warnings(study, arms) + describe_warnings(arms)


def describe_limits(limits: Limits) -> list[str]:
    """Return one line with the limits that are set, none without any."""
    given = {
        f"{limits.max_hours:g} hours of one start": limits.max_hours,
        f"{limits.max_trials} trials": limits.max_trials,
        f"{limits.max_gpu_hours:g} GPU hours": limits.max_gpu_hours,
        f"{limits.trial_minutes:g} minutes for one attempt at a trial": limits.trial_minutes,
    }
    texts = [text for text, value in given.items() if value]
    return [f"  limits: {', '.join(texts)}"] if texts else []


def describe_space(study: Study, arms: list[Arm]) -> list[str]:
    """Return one line per searched parameter."""
    if not study.search.parameters or study.search.scope == "none":
        return []
    lines = ["  searched:"]
    width = max(map(len, study.search.parameters))
    for parameter in study.search.parameters.values():
        users = sum(parameter in arm.space or parameter.key in arm.takes for arm in arms)
        lines.append(f"    {parameter.key:<{width}}  {describe(parameter)}  in {users} of {len(arms)} arms")
    return lines


def describe_arms(study: Study, arms: list[Arm]) -> list[str]:
    """Return one line per arm."""
    lines = ["  arms:"]
    width = max(len(arm.key) for arm in arms)
    for arm in arms:
        counts = trials_of(study, arm)
        shown = " + ".join(
            str(count) for i, count in enumerate(counts) if i != 1 or study.search.finalists.top
        )
        training = arm.config.training
        mark = "  (reference)" if arm.name == study.ablation.reference else ""
        tuned = f"{len(arm.space)} parameters searched"
        if source := takes_from(study, arm):
            tuned = f"takes its {len(arm.takes)} shared parameters from {source}"
        lines.append(
            f"    {arm.key:<{width}}  {shown} trials of {training.epochs} epochs "
            f"({training.steps} steps), {tuned}{mark}"
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
    """Return what the reader must know, once per text."""
    lines = []
    for text in dict.fromkeys(text for arm in arms for text in arm.warnings):
        warned = [arm for arm in arms if text in arm.warnings]
        plural = "s" if len({arm.name for arm in warned}) > 1 else ""
        lines.append(f"  warning: arm{plural} {names_of(warned)}: {text}")
    tuned = [arm for arm in arms if arm.space]
    for key in ("optim.lr", "optim.weight_decay"):
        without = [arm for arm in tuned if key not in {parameter.key for parameter in arm.space}]
        if without:
            lines.append(
                f"  warning: {key} is not tuned in {names_of(without)}; how much it favours an arm is not "
                "known"
            )
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
    """Return the estimated hours from a timed step of each arm.

    What a scheduler stops early is counted in full, and a step of a search trial as one of a confirm trial.

    Args:
        study: The study.
        arms: Its arms.
        timings: Arm key -> measured cost.
        slots: Trials that run at once.
    """
    total = 0.0
    who = "one trial at a time"
    if study.resources.num_workers > 1:
        who = "its share of one worker, without what workers exchange"
    lines = [f"  measured on this machine (one step and one evaluation of each arm, {who}):"]
    width = max(len(arm.key) for arm in arms)
    for arm in arms:
        timing = timings[arm.key]
        training, proxy = arm.config.training, search_config(study, arm).training
        seconds = timing.trial_s(training.steps, training.epochs)
        search, finalists, confirm = trials_of(study, arm)
        total += seconds * (finalists + confirm) + timing.trial_s(proxy.steps, proxy.epochs) * search
        lines.append(f"    {arm.key:<{width}}  {1000 * timing.step_s:6.1f} ms/step  {seconds:6.1f} s/trial")
    hours = total / 3600
    most = "at most " if study.search.scheduler.name != "none" else ""
    lines.append(
        f"  estimated: {most}{hours:.2f} trial-hours, {most}{hours / slots:.2f} hours with {slots} at a time"
    )
    return lines
