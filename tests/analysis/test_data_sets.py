"""Average ranks in the report: from five data sets on, and why not below."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.figures.critical_difference import critical_difference_diagram
from analysis.figures.drawing import save
from analysis.report import make_report

Begin = Callable[..., Any]
ARMS = ("sar", "no_pull", "cross_entropy", "prototypes")
MEANS = {"sar": 0.3, "no_pull": 0.29, "cross_entropy": 0.2, "prototypes": 0.1}


def study(writer: Any, metrics_of: Any, sets: int, arms: tuple[str, ...] = ARMS, factor: str = "data") -> Any:
    """Write a study with two confirm seeds on each data set; return its report and the scores."""
    levels = tuple(f"{factor}=set{number}" for number in range(sets))
    writer.open(arms=arms, levels=levels, trials_per_arm=0, seeds=2)
    rng = np.random.default_rng(1)
    scores = {arm: MEANS[arm] + 0.02 * rng.normal(size=(sets, 2)) for arm in arms}
    for arm in arms:
        for number, level in enumerate(levels):
            for seed in range(2):
                writer.claim(arm, level, seed, f"{arm}-{level}-{seed}")
                writer.finish(f"{arm}-{level}-{seed}", metrics_of(float(scores[arm][number, seed])))
    return make_report(writer.study), scores


def ranks_of(report: Any) -> Any:
    return next((table for table in report.extras if table.title.startswith("Average ranks")), None)


def test_the_table_of_ranks(new_ledger: Begin, metrics_of: Any) -> None:
    report, scores = study(new_ledger(), metrics_of, 6)
    table = ranks_of(report)
    means = np.array([scores[arm].mean(axis=1) for arm in ARMS])
    ranks = stats.rankdata(-means, axis=0)
    order = np.argsort(ranks.mean(axis=1))
    assert [row[0] for row in table.rows] == [ARMS[i] for i in order]
    assert [float(row[1]) for row in table.rows] == pytest.approx(ranks.mean(axis=1)[order], abs=0.006)
    assert [[float(cell) for cell in row[2:]] for row in table.rows] == ranks[order].tolist()
    assert table.columns == ["arm", "average", *(f"set{number}" for number in range(6))]
    friedman = stats.friedmanchisquare(*means)
    assert f"chi-square {friedman.statistic:.2f} with 3 degrees of freedom" in " ".join(table.notes)
    assert "1.91 or more differ significantly" in " ".join(table.notes)  # 2.569 sqrt(20 / 36)


def test_the_diagram(new_ledger: Begin, metrics_of: Any, tmp_path: Any) -> None:
    report, _ = study(new_ledger(), metrics_of, 6)
    (drawing,) = critical_difference_diagram(report.sources)
    (panel,) = drawing.figure.axes
    texts = [text.get_text() for text in panel.texts]
    for arm in ARMS:
        assert sum(arm in text for text in texts) == 1
    assert "CD = 1.91" in texts
    assert "Friedman rejects at .05" in drawing.caption
    assert drawing.alt.startswith("Average ranks of 4 arms over 6 data sets, the best first: ")
    assert all(path.stat().st_size for path in save(drawing, tmp_path))


def test_fewer_than_five_data_sets_are_refused_with_the_reason(new_ledger: Begin, metrics_of: Any) -> None:
    report, _ = study(new_ledger(), metrics_of, 4)
    assert ranks_of(report) is None
    assert critical_difference_diagram(report.sources) == []
    (sentence,) = (line for line in report.caption if "average ranks" in line)
    assert "4 data sets" in sentence
    assert "fewer than 5" in sentence


def test_one_data_set_and_other_factors_say_nothing(new_ledger: Begin, metrics_of: Any) -> None:
    for sets, factor in ((1, "data"), (6, "model"), (6, "data.root")):
        report, _ = study(new_ledger(f"{factor}-{sets}"), metrics_of, sets, factor=factor)
        assert ranks_of(report) is None
        assert not any("average ranks" in line for line in report.caption)


def test_two_arms_are_too_few_to_rank(new_ledger: Begin, metrics_of: Any) -> None:
    report, _ = study(new_ledger(), metrics_of, 5, arms=ARMS[:2])
    assert ranks_of(report) is None
    assert any("need 3 different arms" in line for line in report.caption)


def test_where_friedman_does_not_reject_no_two_arms_are_told_apart(
    new_ledger: Begin, metrics_of: Any
) -> None:
    writer = new_ledger()
    levels = tuple(f"data=set{number}" for number in range(5))
    writer.open(arms=ARMS, levels=levels, trials_per_arm=0, seeds=1)
    for number, level in enumerate(levels):
        for place, arm in enumerate(ARMS):
            writer.claim(arm, level, 0, f"{arm}-{level}")
            writer.finish(f"{arm}-{level}", metrics_of(0.1 + 0.01 * ((place + number) % 4)))
    report = make_report(writer.study)
    assert "does not reject" in " ".join(ranks_of(report).notes)
    (drawing,) = critical_difference_diagram(report.sources)
    assert all(arm in drawing.alt.rpartition("Not told apart: ")[2] for arm in ARMS)
