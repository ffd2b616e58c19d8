"""Designs by component: real openings of the studies in the repository, with results that are made up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.report import Report, make_report
from sarx.study.design import make_arms
from sarx.study.identity import Code
from sarx.study.load import load_study
from sarx.study.opening import opened_payload

Begin = Callable[..., Any]
SPACES = Path(__file__).parents[2] / "search_spaces"
SEEDS = 6


def opened(writer: Any, name: str, reference: str | None = None) -> dict[str, list[float]]:
    """Open a study of the repository without its search, give every arm results; return them by arm."""
    study, source = load_study(SPACES / f"{name}.yaml", ["search=none", f"confirm.seeds={SEEDS}"])
    arms = make_arms(study, source)
    payload = opened_payload(study, arms, Code("c0de", {}), [])
    payload["confirm_seeds"] = [writer.confirm_seed(k) for k in range(SEEDS)]
    payload["reference"] = reference or payload["reference"]
    writer.code = "c0de"
    writer.add("study_opened", payload=payload)
    rng = np.random.default_rng(2)
    scores = {}
    for place, arm in enumerate(arms):
        scores[arm.name] = [float(0.3 - 0.02 * place + 0.003 * rng.normal()) for _ in range(SEEDS)]
        for seed, value in enumerate(scores[arm.name]):
            writer.claim(arm.name, "", seed, f"{arm.name}-{seed}")
            writer.finish(f"{arm.name}-{seed}", {"test/miou": value})
    return scores


def rows(report: Report, title: str) -> list[dict[str, str]]:
    """Return the rows of the one table whose title begins so."""
    (table,) = [table for table in report.extras if table.title.startswith(title)]
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_leave_one_out_says_what_the_whole_loses(new_ledger: Begin) -> None:
    writer = new_ledger()
    scores = opened(writer, "leave_one_out")
    report = make_report(writer.study)
    found = rows(report, "Each component taken away from the whole")
    assert [(row["component"], row["instead"], row["arm"]) for row in found] == [
        ("pull", "off", "no_pull"),
        ("aux", "off", "no_aux"),
        ("ema", "off", "no_ema"),
        ("classifier", "separate", "classifier_separate"),
    ]
    main = {row[0]: dict(zip(report.tables[0].columns, row, strict=True)) for row in report.tables[0].rows}
    for row in found:
        assert row["without it: test/miou, difference to full"] == main[row["arm"]]["difference"]
        assert (row["p (Holm)"], row["verdict"]) == (
            main[row["arm"]]["p (Holm)"],
            main[row["arm"]]["verdict"],
        )
    pulled = np.array(scores["no_pull"]) - np.array(scores["full"])
    assert float(found[0]["without it: test/miou, difference to full"].split()[0]) == pytest.approx(
        pulled.mean(), abs=6e-4
    )


def test_one_factor_says_what_each_gives_alone(new_ledger: Begin) -> None:
    writer = new_ledger()
    opened(writer, "one_factor")
    found = rows(make_report(writer.study), "Each component alone")
    assert [(row["component"], row["level"]) for row in found] == [
        ("pull", "on"),
        ("projector", "on"),
        ("filter", "on"),
        ("rebalancing", "on"),
    ]
    assert {row["arm"] for row in found} == {"pull", "projector", "filter", "rebalancing"}


def test_with_another_reference_differences_are_to_the_whole_and_untested(new_ledger: Begin) -> None:
    writer = new_ledger()
    scores = opened(writer, "leave_one_out", reference="cross_entropy")
    report = make_report(writer.study)
    found = rows(report, "Each component taken away")
    assert "verdict" not in found[0]
    assert "p (Holm)" not in found[0]
    difference = np.array(scores["no_ema"]) - np.array(scores["full"])
    low, high = stats.t.interval(0.95, SEEDS - 1, difference.mean(), stats.sem(difference))
    cell = found[2]["without it: test/miou, difference to full"].replace("[", "").replace("]", "")
    numbers = [float(text.rstrip(",")) for text in cell.split()]
    assert numbers == pytest.approx([difference.mean(), low, high], abs=6e-5)
    (table,) = [table for table in report.extras if table.title.startswith("Each component")]
    assert "not tested: the tests of this study compare with cross_entropy" in table.notes[0]


def test_other_designs_have_no_such_table(new_ledger: Begin) -> None:
    writer = new_ledger()
    opened(writer, "factorial")
    assert not any(table.title.startswith("Each comp") for table in make_report(writer.study).extras)
