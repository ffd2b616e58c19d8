"""What a study set out to do: its ``study_opened`` events, one per start of the driver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from analysis.changes import Changes, changes_and_looks, planned_looks
from analysis.claims import Opening
from analysis.errors import UserError
from analysis.search_plan import Goal, SearchPlan, read_goals
from analysis.space import Range, read_space
from analysis.trials import of_kind
from sarx.study.ledger_schema import CONFIRM


@dataclass(frozen=True)
class Arm:
    """One row of the plan.

    Attributes:
        arm: name of the arm.
        level: factor level, '' without factors.
        parameters: names of the parameters that its search tunes.
        takes: names of the parameters whose values it takes from the arm that is tuned for all.
        warnings: what the plan warned about (options that cannot act).
        components: of an arm that a design made, the level of every component.
    """

    arm: str
    level: str
    parameters: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    components: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cited:
    """A value of the primary metric that others published; not measured here."""

    name: str
    value: float
    source: str
    setting: str = ""


@dataclass(frozen=True)
class Study:
    """The plan as last opened, and what changed before.

    Attributes:
        arms: rows in plan order, per level the reference first.
        primary: the metric of the claims, for example ``test/miou``.
        secondary: further metrics that are tested, each row and metric a member of one second family.
        higher_is_better: direction of ``primary``.
        budget: a heading for the table, '' without.
        trials_per_arm: trials of one search of an arm.
        goals: what search maximises or minimises; the first is ``objective``, which chooses.
        search: how it searches.
        components: the levels of every component, the first is the component present.
        scores: what the mean score averages over, '' if that needs no saying.
        changes: one sentence for each thing that changed between two starts.
        late_changes: those of them that were made after confirm results were known, but for words alone.
        held_out: whether the selection split is a part of the training images; confirm trains on them all.
        orientation: arm -> what others reach on ``primary`` with its settings.
        looks: the planned ones, at least 1, + the number of such changes, made after confirm results were
            known; of plans of looks that were in force while results were known the one with most counts.
        look_starts: the number of each start that made one, with its ``seq``.
        planned_looks: numbers of confirm seeds at which results may be looked at, said up front; each counts
            as a look from the start.
        untested: whether looks were planned and the first is not due yet, so that nothing is tested.
        planned_seeds: seeds of the plan, where ``seeds`` are those of the look that is shown.
        design: what made the arms; ``explicit`` where they are named one by one.
        space: the searched parameters by name, as far as the ledger says.
        cited: values that others published.
    """

    name: str
    question: str
    objective: str
    mode: str
    primary: str
    secondary: tuple[str, ...]
    smallest_effect: float | None
    higher_is_better: bool
    reference: str
    arms: tuple[Arm, ...]
    trials_per_arm: int
    seeds: int
    steps: int | None
    selection: str
    budget: str
    scores: str = ""
    goals: tuple[Goal, ...] = ()
    search: SearchPlan = field(default_factory=SearchPlan)
    components: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    changes: tuple[str, ...] = field(default=())
    late_changes: tuple[str, ...] = field(default=())
    looks: int = 1
    look_starts: Mapping[int, int] = field(default_factory=dict)
    planned_looks: tuple[int, ...] = ()
    planned_seeds: int = 0
    untested: bool = False
    orientation: Mapping[str, float] = field(default_factory=dict)
    held_out: bool = False
    design: str = "explicit"
    space: Mapping[str, Range] = field(default_factory=dict)
    cited: tuple[Cited, ...] = ()

    @property
    def levels(self) -> list[str]:
        """Return the factor levels in plan order."""
        return list(dict.fromkeys(arm.level for arm in self.arms))

    @property
    def tuned(self) -> bool:
        """Return whether any arm has parameters to search."""
        return self.trials_per_arm > 0 and any(arm.parameters for arm in self.arms)

    def trials_of(self, arm: Arm) -> int:
        """Return the planned search trials of an arm, over all of its searches.

        One, its defaults, where there is nothing to search; none where another arm is tuned for it.
        """
        if self.is_follower(arm):
            return 0
        if not arm.parameters:
            return min(1, self.trials_per_arm)
        return self.trials_per_arm * self.search.repeats

    def searches_of(self, arm: Arm) -> int:
        """Return how many independent searches choose for an arm; one where there is nothing to search."""
        tuned = next((a for a in self.arms if (a.level, a.arm) == (arm.level, self.search.shared)), arm)
        return self.search.repeats if tuned.parameters else 1

    def is_follower(self, arm: Arm) -> bool:
        """Return whether an arm has no search of its own and takes its values from another."""
        return self.search.shared not in ("", arm.arm)


def read_study(events: pl.DataFrame) -> Study:
    """Return the study of the last ``study_opened``.

    Raises:
        UserError: no ``study_opened``, or one whose payload lacks what the table needs.
    """
    opened = of_kind(events, "study_opened")
    if opened.is_empty():
        raise UserError(
            "the ledger holds no study_opened event: the driver has not begun, or lines are missing"
        )
    payloads = [_payload(seq, text) for seq, text in opened.select("seq", "payload").iter_rows()]
    finished = of_kind(events, "trial_finished").filter(pl.col("phase") == CONFIRM)["seq"]
    first_result = finished.min()
    first, seqs = first_result if isinstance(first_result, int) else None, opened["seq"].to_list()
    changed = changes_and_looks(payloads, seqs, first)
    planned = max(1, planned_looks(payloads, seqs, first))
    return _study(payloads[-1], Opening(events).plan, changed, planned)


def _payload(seq: int, text: str | None) -> dict[str, Any]:
    """Return the payload of one ``study_opened``, with the keys that the table cannot do without."""
    try:
        payload = json.loads(text or "")
    except ValueError as problem:
        raise UserError(f"ledger event {seq} (study_opened): its payload is not JSON: {problem}") from None
    needed = ("study", "report", "reference", "arms", "seeds")
    missing = [key for key in needed if not isinstance(payload, dict) or payload.get(key) is None]
    if missing or "primary" not in payload["report"]:
        raise UserError(
            f"ledger event {seq} (study_opened): its payload lacks {', '.join(missing or ['report.primary'])}"
        )
    return dict(payload)


def _study(
    payload: dict[str, Any],
    search: SearchPlan,
    changed: Changes,
    planned: int,
) -> Study:
    """Build the study from the last payload; ``planned`` is the number of looks that were planned."""
    report, objective = payload["report"], payload.get("objective") or {}
    secondary = report.get("secondary") or []
    reference = payload["reference"]
    arms = [
        Arm(
            row["arm"],
            row.get("level") or "",
            tuple(row.get("parameters") or ()),
            tuple(row.get("warnings") or ()),
            tuple(row.get("takes") or ()),
            dict(row.get("components") or {}),
        )
        for row in payload["arms"]
    ]
    components = _component_levels(arms)  # the design's first arm has every component at its first level
    levels = list(dict.fromkeys(arm.level for arm in arms))
    arms.sort(key=lambda arm: (levels.index(arm.level), arm.arm != reference))
    metric, mode = objective.get("metric") or "", objective.get("mode") or "max"
    return Study(
        name=payload["study"],
        question=" ".join((payload.get("question") or "").split()),
        objective=metric,
        mode=mode,
        primary=report["primary"],
        secondary=(secondary,) if isinstance(secondary, str) else tuple(secondary),
        smallest_effect=report.get("smallest_effect"),
        higher_is_better=_higher_is_better(report["primary"], metric, mode),
        reference=reference,
        arms=tuple(arms),
        trials_per_arm=payload.get("trials_per_arm") or 0,
        seeds=payload["seeds"],
        steps=payload.get("steps"),
        selection=payload.get("selection") or metric.partition("/")[0],
        budget=payload.get("budget") or "",
        scores=payload.get("scores") or "",
        goals=read_goals(payload),
        search=search,
        components=components,
        changes=changed.sentences,
        late_changes=changed.late,
        looks=planned + len(changed.looks),
        look_starts=changed.looks,
        planned_looks=tuple(payload.get("looks") or ()),
        planned_seeds=payload["seeds"],
        orientation=dict(report.get("orientation") or {}),
        held_out=bool(payload.get("held_out")),
        design=(payload.get("plan") or {}).get("design") or "explicit",
        space=read_space(payload),
        cited=tuple(
            Cited(row["name"], float(row["value"]), row["source"], row.get("setting") or "")
            for row in report.get("cited") or ()
        ),
    )


def _component_levels(arms: list[Arm]) -> dict[str, tuple[str, ...]]:
    """Return the levels of every component, in the order of the arms."""
    found: dict[str, dict[str, None]] = {}
    for arm in arms:
        for name, level in arm.components.items():
            found.setdefault(name, {})[level] = None
    return {name: tuple(levels) for name, levels in found.items()}


def _higher_is_better(primary: str, objective: str, mode: str) -> bool:
    """Return the direction of the primary metric: the objective's if of the same name, else by its name."""
    name = primary.rpartition("/")[2]
    if name == objective.rpartition("/")[2]:
        return mode == "max"
    return not any(word in name for word in ("loss", "error", "nll", "ece", "brier"))
