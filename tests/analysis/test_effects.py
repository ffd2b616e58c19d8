"""Effects of designs: by hand, against least squares of statsmodels, and in the report."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.effects import Effect, factorial_effects, fractional_effects, per_seed
from analysis.report import make_report

ON_OFF = ("on", "off")
Begin = Callable[..., Any]


def grid(levels: dict[str, tuple[str, ...]]) -> list[dict[str, str]]:
    return [dict(zip(levels, point, strict=True)) for point in itertools.product(*levels.values())]


def half_fraction() -> list[dict[str, str]]:
    """Return the 8 cells of 2^(4-1) with d = abc."""
    cells = []
    for a, b, c in itertools.product((1, -1), repeat=3):
        signs = {"a": a, "b": b, "c": c, "d": a * b * c}
        cells.append({name: "on" if sign == 1 else "off" for name, sign in signs.items()})
    return cells


def by_name(effects: list[Effect], values: np.ndarray) -> dict[str, float]:
    found = per_seed(effects, values[:, None])[:, 0]
    return {effect.name: float(value) for effect, value in zip(effects, found, strict=True)}


def test_two_by_two_by_hand() -> None:
    levels = {"a": ON_OFF, "b": ON_OFF}
    values = np.array([7.0, 3.0, 2.0, 1.0])  # on/on, on/off, off/on, off/off
    found = by_name(factorial_effects(grid(levels), levels), values)
    assert found["a: on - off"] == pytest.approx((7 + 3) / 2 - (2 + 1) / 2)
    assert found["b: on - off"] == pytest.approx((7 + 2) / 2 - (3 + 1) / 2)
    assert found["a (on - off) x b (on - off)"] == pytest.approx(((7 - 2) - (3 - 1)) / 2)


def test_three_components_equal_least_squares() -> None:
    sm = pytest.importorskip("statsmodels.api")
    levels = {"a": ON_OFF, "b": ON_OFF, "c": ON_OFF}
    cells = grid(levels)
    values = np.random.default_rng(0).normal(size=8)
    signs = {name: np.array([1 if cell[name] == "on" else -1 for cell in cells]) for name in levels}
    terms = [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    columns = [np.prod([signs[name] for name in term], axis=0) for term in terms]
    fit = sm.OLS(values, sm.add_constant(np.column_stack(columns))).fit()
    effects = factorial_effects(cells, levels)
    assert [effect.used for effect in effects] == ["4 of 4"] * 3 + ["2 of 2"] * 3
    np.testing.assert_allclose(list(by_name(effects, values).values()), 2 * fit.params[1:], atol=1e-12)


def test_more_levels_are_contrasts_to_the_first() -> None:
    levels = {"a": ("x", "y", "z"), "b": ON_OFF}
    cells = grid(levels)
    values = np.random.default_rng(1).normal(size=6)
    found = by_name(factorial_effects(cells, levels), values)
    mean = {level: values[[cell["a"] == level for cell in cells]].mean() for level in levels["a"]}
    assert found["a: x - y"] == pytest.approx(mean["x"] - mean["y"])
    assert found["a: x - z"] == pytest.approx(mean["x"] - mean["z"])
    x_on, x_off, _, _, z_on, z_off = values
    assert found["a (x - z) x b (on - off)"] == pytest.approx(((x_on - z_on) - (x_off - z_off)) / 2)
    assert len(found) == 3 + 2


def test_cells_that_cannot_be_are_left_out_of_the_means() -> None:
    levels = {"sar": ON_OFF, "pull": ON_OFF, "balance": ON_OFF}
    cells = [cell for cell in grid(levels) if not (cell["sar"] == "off" and cell["pull"] == "off")]
    values = np.random.default_rng(2).normal(size=6)
    of = {tuple(cell.values()): value for cell, value in zip(cells, values, strict=True)}
    effects = factorial_effects(cells, levels)
    found, named = by_name(effects, values), {effect.name: effect for effect in effects}
    expected = np.mean([of["on", "on", b] - of["off", "on", b] for b in ON_OFF])
    assert found["sar: on - off"] == pytest.approx(expected)
    assert named["sar: on - off"].used == "2 of 4"
    assert named["balance: on - off"].used == "3 of 4"
    refused = named["sar (on - off) x pull (on - off)"]
    assert refused.refused == "no four arms differ in these two alone"
    assert np.isnan(found[refused.name])
    expected = (
        of["on", "on", "on"] - of["off", "on", "on"] - of["on", "on", "off"] + of["off", "on", "off"]
    ) / 2
    assert found["sar (on - off) x balance (on - off)"] == pytest.approx(expected)


def test_a_half_fraction_names_its_aliases_and_gives_their_sum() -> None:
    levels = dict.fromkeys("abcd", ON_OFF)
    cells = half_fraction()
    sign = {name: np.array([1 if cell[name] == "on" else -1 for cell in cells]) for name in levels}
    truth = 0.5 * (
        0.4 * sign["a"] - 0.2 * sign["d"] + 0.3 * sign["a"] * sign["b"] + 0.1 * sign["c"] * sign["d"]
    )
    effects = fractional_effects(cells, levels)
    found = by_name(effects, 1 + truth)
    assert list(found) == [f"{name}: on - off" for name in "abcd"] + [
        f"a (on - off) x {name} (on - off)" for name in "bcd"
    ]
    expected = [0.4, 0, 0, -0.2, 0.3 + 0.1, 0, 0]
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-12)
    assert effects[4].aliases == ("+ c (on - off) x d (on - off)",)
    assert not any(effect.aliases or effect.refused for effect in effects[:4])


def test_opposite_columns_are_aliases_with_a_minus() -> None:
    levels = dict.fromkeys("abcd", ON_OFF)
    other_half = [cell | {"d": "off" if cell["d"] == "on" else "on"} for cell in half_fraction()]
    effects = fractional_effects(other_half, levels)
    assert effects[4].aliases == ("- c (on - off) x d (on - off)",)


def test_a_fraction_with_a_hole_refuses_what_is_no_longer_clear() -> None:
    levels = dict.fromkeys("abcd", ON_OFF)
    effects = fractional_effects(half_fraction()[:-1], levels)
    assert all(effect.refused for effect in effects)
    assert "cells of the fraction were left out" in effects[0].refused
    assert np.isnan(per_seed(effects, np.ones((7, 2)))).all()


def test_effects_aliased_with_a_main_effect_are_refused() -> None:
    levels = dict.fromkeys("abc", ON_OFF)
    cells = [cell for cell in grid(levels) if (cell["c"] == "on") == (cell["a"] == cell["b"])]
    named = {effect.name: effect for effect in fractional_effects(cells, levels)}
    assert named["c: on - off"].aliases == ("+ a (on - off) x b (on - off)",)
    assert named["a (on - off) x b (on - off)"].refused == "aliased with the main effect c: on - off"
    twins = [cell for cell in grid(levels) if cell["a"] == cell["b"]]
    named = {effect.name: effect for effect in fractional_effects(twins, levels)}
    assert named["a: on - off"].refused == "aliased with b: on - off"
    assert named["a (on - off) x b (on - off)"].refused == "the same in all arms"
    assert not named["c: on - off"].refused


def write(
    writer: Any, metrics_of: Any, scores: dict[str, np.ndarray], cells: list[dict[str, str]], design: str
) -> Any:
    """Write a study whose first arms are the cells of a design; NaN is a seed that diverged."""
    rows: list[dict[str, Any]] = [{"arm": arm, "level": ""} for arm in scores]
    for row, cell in zip(rows, cells, strict=False):
        row["components"] = cell
    payload = {
        "study": "effects",
        "report": {"primary": "test/miou", "smallest_effect": 0.02},
        "reference": list(scores)[1],
        "arms": rows,
        "seeds": len(next(iter(scores.values()))),
        "plan": {"design": design},
    }
    writer.add("study_opened", payload=payload)
    for arm, values in scores.items():
        for seed, value in enumerate(values):
            name = f"{arm}-{seed}"
            writer.claim(arm, "", seed, name)
            if np.isfinite(value):
                writer.finish(name, metrics_of(float(value)))
            else:
                writer.add("trial_started", trial_id=name, attempt=1, phase="confirm", epoch=0)
                writer.add("diverged", trial_id=name, attempt=1, phase="confirm", epoch=1, payload={})
    return make_report(writer.study)


def effects_of(report: Any) -> Any:
    return next((table for table in report.extras if "main effects" in table.title), None)


def two_by_two(seeds: int = 8) -> dict[str, np.ndarray]:
    """Return scores of the four cells, and of an arm beside the design."""
    rng = np.random.default_rng(4)
    common = 0.3 + 0.05 * rng.normal(size=seeds)
    means = {"full": 0.06, "no_b": 0.05, "no_a": 0.01, "no_a-no_b": 0.0, "other": 0.5}
    return {name: common + mean + 0.004 * rng.normal(size=seeds) for name, mean in means.items()}


def test_the_table_has_interval_and_holm_over_all_effects(new_ledger: Begin, metrics_of: Any) -> None:
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    scores, levels = two_by_two(), {"a": ON_OFF, "b": ON_OFF}
    table = effects_of(write(new_ledger(), metrics_of, scores, grid(levels), "factorial"))
    assert table.columns == ["effect", "test/miou", "p (Holm)", "seeds", "combinations"]
    full, no_b, no_a, none = (scores[name] for name in ("full", "no_b", "no_a", "no_a-no_b"))
    each = [(full + no_b - no_a - none) / 2, (full + no_a - no_b - none) / 2, (full - no_a - no_b + none) / 2]
    p = multipletests([stats.ttest_1samp(values, 0).pvalue for values in each], method="holm")[1]
    for row, values, adjusted in zip(table.rows, each, p, strict=True):
        low, high = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
        numbers = [float(part.strip("[],")) for part in row[1].split()]
        assert numbers == pytest.approx([values.mean(), low, high], abs=6e-4)
        assert row[2] == ("<.001" if adjusted < 0.001 else f"{adjusted:.3f}".lstrip("0"))
        assert row[3] == "8"
    assert (0, 1) in table.bold
    assert (2, 1) not in table.bold
    assert "Holm over all 3 effects" in " ".join(table.notes)
    assert "half the difference of differences" in " ".join(table.notes)


def test_a_seed_that_one_arm_lost_is_no_part_of_its_effects(new_ledger: Begin, metrics_of: Any) -> None:
    scores, levels = two_by_two(), {"a": ON_OFF, "b": ON_OFF}
    scores["no_a"][2] = np.nan
    table = effects_of(write(new_ledger(), metrics_of, scores, grid(levels), "factorial"))
    assert [row[3] for row in table.rows] == ["7"] * 3
    assert table.rows[0][2] == "<.001"
    scores["full"][5] = np.nan  # no arm lost more than one of 8, the contrast has lost 2 of 8
    table = effects_of(write(new_ledger("b"), metrics_of, scores, grid(levels), "factorial"))
    assert [row[2:4] for row in table.rows] == [["-", "6"]] * 3
    assert not table.bold


def test_a_fraction_in_the_report(new_ledger: Begin, metrics_of: Any) -> None:
    rng = np.random.default_rng(0)
    scores = {f"cell-{i}": 0.3 + 0.01 * rng.normal(size=5) for i in range(8)}
    table = effects_of(write(new_ledger(), metrics_of, scores, half_fraction(), "fractional"))
    assert table.columns[-1] == "aliased with"
    assert [row[-1] for row in table.rows[:4]] == ["-"] * 4
    assert table.rows[4][-1] == "+ c (on - off) x d (on - off)"
    assert "cannot tell apart" in " ".join(table.notes)


def test_other_designs_have_no_effects(new_ledger: Begin, metrics_of: Any) -> None:
    scores, levels = two_by_two(), {"a": ON_OFF, "b": ON_OFF}
    for design in ("leave_one_out", "explicit"):
        assert effects_of(write(new_ledger(design), metrics_of, scores, grid(levels), design)) is None
    assert effects_of(write(new_ledger("none"), metrics_of, scores, [], "factorial")) is None
