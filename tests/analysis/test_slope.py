"""The slope of paired differences on log imbalance, against scipy."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.comparison import Row
from analysis.report import make_report
from analysis.slope import has_mark, slopes

IMBALANCES = (1, 5, 20, 100)
LEVELS = tuple(f"data.imbalance={value}" for value in IMBALANCES)


def scores(rng: np.random.Generator, growth: float) -> np.ndarray:
    """Return test scores (levels, seeds) whose lead grows by ``growth`` per factor of 10."""
    lead = growth * np.log10(IMBALANCES)
    return 0.5 + lead[:, None] + 0.01 * rng.standard_normal((4, 6))


@pytest.fixture
def report(new_ledger: Any, metrics_of: Any) -> Any:
    rng = np.random.default_rng(3)
    writer = new_ledger()
    writer.open(
        arms=("cross_entropy", "sar", "prototypes"),
        levels=LEVELS,
        reference="cross_entropy",
        trials_per_arm=0,
        seeds=6,
    )
    found = {"cross_entropy": scores(rng, 0.0), "sar": scores(rng, 0.03), "prototypes": scores(rng, 0.0)}
    found["prototypes"][2, 4] = np.nan
    for arm, values in found.items():
        for level, row in zip(LEVELS, values, strict=True):
            for seed, value in enumerate(row):
                name = f"{arm}-{level}-{seed}"
                writer.claim(arm, level, seed, name)
                if np.isfinite(value):
                    writer.finish(name, metrics_of(float(value)))
    return make_report(writer.study), found


def table_of(report: Any) -> Any:
    (table,) = (t for t in report.extras if t.title.startswith("test/miou: difference"))
    return table


def test_slopes_and_tests_equal_scipy(report: Any) -> None:
    made, found = report
    table = table_of(made)
    assert table.columns == ["arm", "x1", "x5", "x20", "x100", "slope", "p (Holm)", "seeds"]
    p = {}
    for arm, row in zip(("sar", "prototypes"), table.rows, strict=True):
        differences = found[arm] - found["cross_entropy"]
        seeds = [seed for seed in range(6) if np.isfinite(differences[:, seed]).all()]
        each = np.array([stats.linregress(np.log10(IMBALANCES), differences[:, k]).slope for k in seeds])
        low, high = stats.t.interval(0.95, len(each) - 1, each.mean(), stats.sem(each))
        assert row[0] == arm
        numbers = [float(part.strip("[],")) for part in row[5].split()]
        assert numbers == pytest.approx([each.mean(), low, high], abs=6e-4)
        assert row[7] == str(len(seeds))
        means = differences[:, seeds].mean(axis=1)
        assert [float(cell) for cell in row[1:5]] == pytest.approx(means, abs=6e-4)
        p[arm] = stats.ttest_1samp(each, 0).pvalue
    assert p["sar"] < p["prototypes"]
    assert table.rows[1][6] == f"{p['prototypes']:.3f}".lstrip("0")
    assert table.rows[0][6] == ("<.001" if 2 * p["sar"] < 0.001 else f"{2 * p['sar']:.3f}".lstrip("0"))


def test_seeds_lost_at_different_levels_add_up() -> None:
    def row(level: str, **counts: int) -> Row:
        return Row("sar", level, False, "", False, Counter(counts), 8, False)

    whole = [row(level, finished=8) for level in LEVELS]
    assert has_mark(whole, 8)
    lost = [row(level, finished=7, diverged=1) for level in LEVELS]
    assert has_mark(lost, 7)  # the same seed at every level
    assert not has_mark(lost, 4)
    assert has_mark([row(level, finished=4, waiting=4) for level in LEVELS], 2)  # still to come
    assert not has_mark([replace(lost[0], unmarked=True)], 7)


def test_a_straight_line_has_its_own_slope() -> None:
    x = np.array([1.0, 5.0, 20.0, 100.0])
    line = 0.2 - 0.07 * np.log10(x)
    assert slopes(np.stack([line, line + 9])[None].transpose(0, 2, 1), x) == pytest.approx(-0.07)


def test_two_levels_or_another_factor_give_no_table(new_ledger: Any, metrics_of: Any) -> None:
    writer = new_ledger()
    writer.open(arms=("sar", "none"), levels=LEVELS[:2], trials_per_arm=0, seeds=2)
    for arm in ("sar", "none"):
        for level in LEVELS[:2]:
            for seed in range(2):
                writer.claim(arm, level, seed, f"{arm}{level}{seed}")
                writer.finish(f"{arm}{level}{seed}", metrics_of(0.1 * seed))
    assert not [table for table in make_report(writer.study).extras if "by imbalance" in table.title]


def test_classes_that_are_few_at_one_imbalance_only_have_no_slope(new_ledger: Any) -> None:
    writer = new_ledger()
    writer.open(arms=("sar", "none"), levels=LEVELS, trials_per_arm=0, seeds=2)
    for arm in ("sar", "none"):
        for level in LEVELS:
            for seed in range(2):
                values = {"test/miou": 0.1 * seed + 0.05 * (arm == "sar"), "test/tail_iou": 0.1}
                values |= {"test/few_accuracy": 0.2} if level == LEVELS[-1] else {}
                writer.claim(arm, level, seed, f"{arm}{level}{seed}")
                writer.finish(f"{arm}{level}{seed}", values)
    titles = [t.title for t in make_report(writer.study).extras if "by imbalance" in t.title]
    assert [title.partition(":")[0] for title in titles] == ["test/miou", "test/tail_iou"]
