"""Figure 1's claim: who is compared, the test against a slow one, and how often it errs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.consistency import layout_agreement, layout_pairs, off_diagonal_cosines, over_pairs
from analysis.consistency_claim import anchored_arm, claim, claims, plain_arm, sentence
from analysis.ledger import read_ledger
from analysis.report import make_report
from analysis.statistics import Array

Begin = Callable[..., Any]


def layouts(spread: float, seed: int, seeds: int = 5) -> list[Array]:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(7, 6))
    return [common + spread * rng.normal(size=common.shape) for _ in range(seeds)]


def pairs_of(vectors: list[Array]) -> Array:
    return layout_pairs([{"class_means": rows} for rows in vectors], "class_means")


def slow_agreement(vectors: list[Array], left_out: int | None = None) -> float:
    kept = [rows for k, rows in enumerate(vectors) if k != left_out]
    found = [
        np.corrcoef(off_diagonal_cosines(a), off_diagonal_cosines(b))[0, 1]
        for a, b in itertools.combinations(kept, 2)
    ]
    return float(np.mean(found))


def test_the_claim_is_the_paired_jackknife_done_slowly() -> None:
    sar, plain = layouts(0.3, 1), layouts(0.9, 1)
    made = claim("sar", "ce", pairs_of(sar), pairs_of(plain))
    without = np.array([slow_agreement(sar, k) - slow_agreement(plain, k) for k in range(5)])
    error = np.sqrt(4 / 5 * ((without - without.mean()) ** 2).sum())
    value = slow_agreement(sar) - slow_agreement(plain)
    assert made.difference.value == pytest.approx(value)
    assert made.difference.error == pytest.approx(error)
    assert made.p == pytest.approx(2 * stats.t.sf(abs(value) / error, 4))
    assert made.word == "more alike over seeds"
    back = claim("ce", "sar", pairs_of(plain), pairs_of(sar))
    assert back.p == pytest.approx(made.p)
    assert back.word == "less alike over seeds"
    text = sentence(made, "model=small")
    assert text.startswith("Consistency of class means over seeds, sar minus ce (model=small): +")
    assert text.endswith("5 seeds, p " + text.rpartition("p ")[2])


def test_too_few_seeds_and_equal_arms_claim_nothing() -> None:
    two = claim("sar", "ce", pairs_of(layouts(0.3, 1, 2)), pairs_of(layouts(0.9, 2, 2)))
    assert sentence(two).endswith("not yet, it takes 3 seeds that both arms finished.")
    same = claim("sar", "ce", pairs_of(layouts(0.3, 1)), pairs_of(layouts(0.3, 1)))
    assert same.word == "identical"


def test_arms_that_differ_in_nothing_are_seldom_told_apart() -> None:
    # 200 pairs of equal arms with 5 seeds: at .05 more than 21 are found with a probability below .001.
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(200):
        common = rng.normal(size=(6, 8))
        first, second = (
            over_pairs([common + 0.8 * rng.normal(size=common.shape) for _ in range(5)], layout_agreement)
            for _ in range(2)
        )
        found += claim("sar", "ce", first, second).p <= 0.05
    assert found <= 21


def left(spread: float, seed: int, anchors: bool) -> list[dict[str, Array]]:
    found = [{"class_means": means} for means in layouts(spread, seed)]
    return [arrays | {"semantic_anchors": np.eye(7)} for arrays in found] if anchors else found


def test_levels_are_corrected_and_one_arm_stands_for_sar() -> None:
    levels = {
        level: {"ce": left(0.9, seed, False), "no_pull": left(0.5, seed, True), "sar": left(0.6, seed, True)}
        for level, seed in (("a", 1), ("b", 2), ("c", 3))
    }
    alone = {level: claims({level: arms}, "ce", "ce")[level] for level, arms in levels.items()}
    made = claims(levels, "ce", "ce")
    expected = multipletests([one.p for one in alone.values()], method="holm")[1]
    assert [one.p for one in made.values()] == pytest.approx(expected)
    assert {one.arm for one in made.values()} == {"sar"}
    assert claims(levels, "no_pull", "ce")["a"].arm == "no_pull"
    assert claims(levels, "ce", None) == {}
    assert claims({"a": {"ce": left(0.9, 1, False)}}, "ce", "ce") == {}
    assert anchored_arm({"x": left(0.9, 1, True), "y": [None]}, "y") == "x"


@pytest.mark.parametrize(
    ("base", "overrides", "expected"),
    [
        ([], {"ce": {"regularizer": "none"}, "sar": {}}, "ce"),
        (["regularizer=sar"], {"sar": {}, "la": {"regularizer": "none", "loss": "logit_adjusted"}}, None),
        (["regularizer=none"], {"sar": {"regularizer": "sar"}, "base": {}}, "base"),
        (
            ["loss=ohem"],
            {"a": {"regularizer": "none"}, "b": {"regularizer": "none", "loss": "cross_entropy"}},
            "b",
        ),
        ([], {"sar": {}, "cross_entropy": {}}, "cross_entropy"),
    ],
)
def test_the_plain_arm_is_known_by_its_options(
    new_ledger: Begin, base: list[str], overrides: dict[str, Any], expected: str | None
) -> None:
    writer = new_ledger()
    rows = [{"arm": arm, "overrides": own} for arm, own in overrides.items()]
    writer.open()
    writer.add("study_opened", payload={"arms": rows, "plan": {"base": base}})
    assert plain_arm(read_ledger(writer.study).events) == expected
    assert plain_arm(pl.DataFrame(schema={"event": pl.String, "payload": pl.String})) is None


def test_the_report_makes_the_claim_whatever_the_reference(new_ledger: Begin) -> None:
    writer = new_ledger()
    arms = ("other", "sar", "cross_entropy")
    writer.open(arms=arms, levels=("",), trials_per_arm=0, seeds=5, reference="other")
    for arm, spread in zip(arms, (0.5, 0.3, 0.9), strict=True):
        for seed, means in enumerate(layouts(spread, 1)):
            writer.claim(arm, "", seed, f"{arm}-{seed}")
            writer.finish(f"{arm}-{seed}", {"test/miou": 0.2, "geometry/features/nc1": 1.0})
            folder = writer.study / "trials" / f"{arm}-{seed}" / "attempt-1"
            folder.mkdir(parents=True)
            arrays = {"class_means": means, "features": means, "pixels": np.arange(7), "labels": np.arange(7)}
            np.savez(
                folder / "geometry.npz", **arrays, **({"semantic_anchors": means} if arm == "sar" else {})
            )
    section = make_report(writer.study).geometry
    assert section is not None
    said = [note for note in section.notes if note.startswith("Consistency of class means over seeds")]
    assert said == [
        sentence(claim("sar", "cross_entropy", *map(pairs_of, (layouts(0.3, 1), layouts(0.9, 1)))))
    ]
    table = section.tables[1]
    assert [name for name in table.columns if "minus" in name] == [
        "class means, minus other",
        "class means, minus cross_entropy",
    ]
