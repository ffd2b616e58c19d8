"""Whose trials count: proposals of the last plan, the winners among them, and the claims of these winners.

A place is (level, arm, repeat, index): a proposal, finalist run or confirm seed of one search of one arm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from analysis.packed import unpacked as unpacked_metrics
from analysis.remember import once_per_ledger
from analysis.search_plan import SearchPlan, read_search_plan
from analysis.trials import BEFORE_CONFIRM, finished, of_kind
from sarx.study.ledger_schema import CONFIRM, FINALIST

ROW = ["level", "arm"]
SEARCH = [*ROW, "repeat"]
PLACE = [*SEARCH, "index"]
_CLAIM = {
    "level": pl.String(),
    "arm": pl.String(),
    "repeat": pl.Int64(),
    "index": pl.Int64(),
    "seed": pl.Int64(),
    "trial_id": pl.String(),
}
Parameters = Mapping[str, str]
"""Values as JSON by option."""


@dataclass(frozen=True)
class Winner:
    """The last choice of a search.

    Attributes:
        parameters: None where the ledger does not say.
        score: the objective, with finalists the mean over their runs.
        counts: it is among the proposals that count, or its row has none at all, and it was not forgotten.
            Otherwise the search runs anew, and the winner is of the plan before.
    """

    trial_id: str
    index: int | None
    parameters: Parameters | None
    score: float | None
    counts: bool


class Opening:
    """The last start of a study; empty without any.

    Args:
        events: of the ledger.

    Attributes:
        payload: what it says.
        plan: how it searches.
    """

    def __init__(self, events: pl.DataFrame) -> None:
        """Read the last ``study_opened``."""
        opened = of_kind(events, "study_opened")["payload"]
        self.payload: dict[str, Any] = dict(json.loads(opened[-1] or "{}")) if len(opened) else {}
        last = of_kind(events, "proposed")["repeat"].max()
        self.plan: SearchPlan = read_search_plan(self.payload, 1 + (last if isinstance(last, int) else 0))

    @cached_property
    def rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the rows of the plan by level and arm."""
        return {(row.get("level") or "", row["arm"]): row for row in self.payload.get("arms") or ()}

    def searcher(self, level: str, arm: str) -> tuple[str, str]:
        """Return the row whose search chooses for a row: its own, but under scope shared."""
        return level, self.plan.shared or arm

    def searches(self, level: str, arm: str) -> int | None:
        """Return how many independent searches choose for a row; None for a row that is not in the plan."""
        row = self.rows.get(self.searcher(level, arm))
        if row is None:
            return None
        return self.plan.repeats if row.get("parameters") else 1

    def own_trials(self, level: str, arm: str) -> int:
        """Return the planned search trials of one search of a row; 0 where another arm is tuned for it."""
        if self.plan.shared not in ("", arm):
            return 0
        trials = int(self.payload.get("trials_per_arm") or 0)
        return trials if self.rows[level, arm].get("parameters") else min(1, trials)

    def of_its_code(self, found: pl.DataFrame) -> pl.DataFrame:
        """Keep the proposals or claims of its code; where one of the two is not known, all."""
        digest = (self.payload.get("code") or {}).get("digest")
        code = pl.col("payload").str.json_path_match("$.code")
        return found.filter((code == digest).fill_null(True) | (code == "")) if digest else found

    def of_its_seeds(self, claims: pl.DataFrame) -> pl.DataFrame:
        """Keep the claims on its confirm seeds, so that pairs have equal seeds; all if it names none."""
        seeds = self.payload.get("confirm_seeds") or []
        planned = pl.DataFrame(
            {"index": range(len(seeds)), "planned": seeds}, schema={"index": pl.Int64, "planned": pl.Int64}
        )
        joined = claims.join(planned, on="index", how="left", maintain_order="left")
        return joined.filter((pl.col("seed") == pl.col("planned")).fill_null(True)).drop("planned")


@once_per_ledger
def opened(events: pl.DataFrame) -> Opening:
    """Return the last start of a study."""
    return Opening(events)


@once_per_ledger
def proposals(events: pl.DataFrame) -> pl.DataFrame:
    """Return the proposals that count: of the last code, the last one per place.

    Columns: level, arm, repeat, index, trial_id, parameters, same_as (index of an earlier proposal of the
    search with the same point, whose trial stands for both; else null).
    """
    found = opened(events).of_its_code(of_kind(events, "proposed"))
    same_as = pl.col("payload").str.json_path_match("$.same_as").cast(pl.Int64)
    return (
        found.sort("seq")
        .with_columns(pl.col("repeat").fill_null(0), same_as.alias("same_as"))
        .unique(PLACE, keep="last", maintain_order=True)
        .select(*PLACE, "trial_id", "parameters", "same_as")
    )


@once_per_ledger
def planned_proposals(events: pl.DataFrame) -> pl.DataFrame:
    """Return those of ``proposals`` that the last plan holds: of its arms, searches and indices."""
    opening = opened(events)
    plan = pl.DataFrame(
        [
            (level, arm, opening.searches(level, arm), opening.own_trials(level, arm))
            for level, arm in opening.rows
        ],
        schema={**{name: _CLAIM[name] for name in ROW}, "searches": pl.Int64, "planned": pl.Int64},
        orient="row",
    )
    within = (pl.col("index") < pl.col("planned")) & (pl.col("repeat") < pl.col("searches"))
    found = proposals(events).join(plan, on=ROW, maintain_order="left").filter(within)
    return found.drop("searches", "planned")


@once_per_ledger
def finalist_claims(events: pl.DataFrame) -> pl.DataFrame:
    """Return the finalist runs that count, one row per place, with proposal: the index of what runs again."""
    opening = opened(events)
    claims = of_kind(events, "claimed").filter(pl.col("phase") == FINALIST)
    found = (
        opening.of_its_code(claims)
        .sort("seq")
        .with_columns(
            pl.col("repeat").fill_null(0),
            pl.col("payload").str.json_path_match("$.proposal").cast(pl.Int64).alias("proposal"),
        )
        .unique(PLACE, keep="last", maintain_order=True)
        .select(*PLACE, "trial_id", "proposal")
    )
    if opening.plan.finalists is not None:
        found = found.filter(pl.col("index") < opening.plan.finalists * opening.plan.finalist_seeds)
    rows = [
        (searches := opening.searches(level, arm)) is not None and repeat < searches
        for level, arm, repeat in found.select(SEARCH).iter_rows()
    ]
    return found.filter(pl.Series(rows, dtype=pl.Boolean))


@once_per_ledger
def winners(events: pl.DataFrame) -> dict[tuple[str, str, int], Winner]:
    """Return the last choice of each search, by level, arm and repeat."""
    offered = proposals(events)
    searched = set(of_kind(events, "proposed").select(*ROW).unique().iter_rows())
    counted = set(offered.select(*SEARCH, "trial_id").iter_rows())
    gone = _forgotten(events)
    found = {}
    for event in of_kind(events, "selected").sort("seq").iter_rows(named=True):
        at = (event["level"], event["arm"], event["repeat"] or 0)
        trial, score = event["trial_id"], unpacked_metrics(event["metrics"] or b"[]")
        found[at] = Winner(
            trial,
            event["index"],
            unpacked(event["parameters"]),
            score[0][1] if score and math.isfinite(score[0][1] or 0.0) else None,
            counts=(at[:2] not in searched or (*at, trial) in counted)
            and not event["seq"] < gone.get(trial, -1),
        )
    return found


@once_per_ledger
def winner_counts(events: pl.DataFrame) -> dict[tuple[str, str], tuple[int, int]]:
    """Return for each row of the plan how many of its searches have a winner, and how many there are.

    Under scope shared these are the searches of the arm that is tuned. One whose claims count without any
    choice on record never had to choose.
    """
    opening, chosen = opened(events), winners(events)
    claimed = set(counted_claims(events).select(SEARCH).iter_rows())
    counts = {}
    for row in opening.rows:
        searcher, needed = opening.searcher(*row), opening.searches(*row)
        if needed is not None:
            found = [
                ((at := (*searcher, repeat)) in chosen and chosen[at].counts) or (*row, repeat) in claimed
                for repeat in range(needed)
            ]
            counts[row] = (sum(found), needed)
    return counts


@once_per_ledger
def counted_claims(events: pl.DataFrame) -> pl.DataFrame:
    """Return the confirm claims that count, the last per level, arm and index.

    Columns: level, arm, repeat, index, seed, trial_id.

    They are on the last plan's seeds and code, on the search that the plan gives the seed to (k modulo their
    number), and of that search's last winner: with its parameters, or, where these are not recorded, made
    while it was the winner. A new winner with the parameters of the one before (the same proposal under other
    search settings) so keeps the confirm trials. Rows without any choice on record keep all claims.
    """
    opening, last = opened(events), winners(events)
    confirm = of_kind(events, "claimed").filter(pl.col("phase") == CONFIRM)
    valid = opening.of_its_seeds(opening.of_its_code(confirm))
    chosen = of_kind(events, "selected")
    current: dict[tuple[str, str, int], str] = {}
    kept: dict[tuple[str, str, int], tuple[Any, ...]] = {}
    steps = pl.concat([found.select("event", *_CLAIM, "parameters", "seq") for found in (chosen, valid)])
    for event in steps.sort("seq").iter_rows(named=True):
        level, arm, repeat, index = event["level"], event["arm"], event["repeat"] or 0, event["index"]
        if event["event"] == "selected":
            current[level, arm, repeat] = event["trial_id"]
            continue
        searches = opening.searches(level, arm)
        if searches is not None and repeat != index % searches:
            continue
        at = (*opening.searcher(level, arm), repeat)
        if _is_of(event, last.get(at), current.get(at), opening):
            kept[level, arm, index] = (level, arm, repeat, index, event["seed"], event["trial_id"])
    return pl.DataFrame(list(kept.values()), schema=_CLAIM, orient="row")


def _is_of(claim: Mapping[str, Any], winner: Winner | None, made_under: str | None, opening: Opening) -> bool:
    """Return whether a claim is of a winner; without a winner there was nothing to choose."""
    if winner is None:
        return True
    if not winner.counts:
        return False
    mine = unpacked(claim["parameters"])
    if mine is None or winner.parameters is None:
        return made_under == winner.trial_id
    row = opening.rows.get((claim["level"], claim["arm"]), {})
    takes = row.get("takes") or row.get("parameters") or mine
    if opening.plan.shared in ("", claim["arm"]):
        return mine == winner.parameters
    return mine == {key: value for key, value in winner.parameters.items() if key in takes}


def unpacked(stored: Sequence[Mapping[str, str]] | None) -> Parameters | None:
    """Return the parameters of a proposal, claim or winner; None where they are not recorded."""
    return None if stored is None else {item["name"]: item["value"] for item in stored}


def parameters_json(parameters: Parameters | None) -> str | None:
    """Return parameters as one JSON object; None for those that are not recorded."""
    if parameters is None:
        return None
    return json.dumps({name: json.loads(value) for name, value in parameters.items()})


def _forgotten(events: pl.DataFrame) -> dict[str, int]:
    """Return the seq of the last ``forgotten`` of the search trials that have not ended again since."""
    gone = of_kind(events, "forgotten").group_by("trial_id").agg(pl.col("seq").max())
    again = set(finished(events, BEFORE_CONFIRM)["trial_id"])
    return {trial: seq for trial, seq in gone.iter_rows() if trial not in again}
