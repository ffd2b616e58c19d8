"""Lines of the checklist on the arms that decide what a gain of SAR is made of."""

from __future__ import annotations

from collections.abc import Callable

from analysis.claims import Opening
from analysis.line import NOT_APPLICABLE, NOT_KNOWN, Line, answered, shortened
from analysis.options import REBALANCED, ArmOptions, arm_options
from analysis.sources import Sources
from analysis.table import full_name


def aux_only(sources: Sources) -> Line:
    """Is there an arm with the anchor cross-entropy alone?"""
    return _present(
        sources,
        "Is there an arm of SAR's auxiliary loss alone?",
        "regularizer.pull_weight 0",
        lambda arm: arm.may_be_sar and arm.is_zero("regularizer.pull_weight"),
        same_loss=True,
    )


def pull_only(sources: Sources) -> Line:
    """Is there an arm with the pull alone?"""
    return _present(
        sources,
        "Is there an arm of SAR's pull alone?",
        "regularizer.aux_weight 0",
        lambda arm: arm.may_be_sar and arm.is_zero("regularizer.aux_weight"),
        same_loss=True,
    )


def rebalancing(sources: Sources) -> Line:
    """Is there an arm that re-balances classes and does nothing else?"""
    return _present(
        sources,
        "Is there an arm of plain re-balancing, without SAR?",
        f"regularizer none and loss {' or '.join(sorted(REBALANCED))}",
        lambda arm: arm.value("regularizer") == "none" and arm.loss in REBALANCED,
        same_loss=False,
    )


def _present(
    sources: Sources, question: str, what: str, fits: Callable[[ArmOptions], bool], same_loss: bool
) -> Line:
    """Answer whether every level has an arm that fits, by what the arms and the base set.

    Args:
        sources: of the report.
        question: of the line.
        what: the settings that are looked for.
        fits: whether an arm has them.
        same_loss: an arm counts only with the task loss of its level's reference.
    """
    study = sources.study
    arms = arm_options(Opening(sources.events).payload)
    if any(arm.given is None for arm in arms):
        return Line(question, NOT_KNOWN, "The ledger does not record what the arms set.")
    if not any(arm.may_be_sar for arm in arms):
        return Line(question, NOT_APPLICABLE, f"None of {len(arms)} rows uses SAR.")
    losses = {arm.level: arm.loss for arm in arms if arm.arm == study.reference}
    found = [arm for arm in arms if fits(arm) and not (same_loss and arm.loss != losses.get(arm.level, ""))]
    acting = [arm for arm in found if not arm.inert]
    lacking = [level for level in study.levels if level not in {arm.level for arm in acting}]
    names = shortened(_by_arm(acting, study.levels))
    warned = [f"{full_name(arm.arm, arm.level)}: {'; '.join(arm.inert)}" for arm in found if arm.inert]
    evidence = f"{len(acting)} of {len(arms)} rows set {what}" + (f": {names}" if names else "")
    if acting and lacking:
        evidence += f"; none at {shortened(lacking)}"
    if warned:
        evidence += f"; not counted, as the plan warns of {shortened(warned, 2)}"
    return answered(question, not lacking, evidence + ".")


def _by_arm(arms: list[ArmOptions], levels: list[str]) -> list[str]:
    """Return the names of arms, with the levels where an arm is not at all of them."""
    found: dict[str, list[str]] = {}
    for arm in arms:
        found.setdefault(arm.arm, []).append(arm.level)
    return [name if len(at) == len(levels) else full_name(name, ", ".join(at)) for name, at in found.items()]
