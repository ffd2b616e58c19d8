"""The section on geometry in the report of synthetic studies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.consistency import jackknife, layout_pairs
from analysis.markdown import to_markdown
from analysis.numbers import interval
from analysis.report import Report, make_report
from analysis.table import Table

Begin = Callable[..., Any]
SEEDS = 4
NC1 = {"sar": [1.0, 1.5, 1.25, 1.75], "cross_entropy": [3.0, 4.0, 3.5, 4.5]}


def class_means(arm: str, level: str, seed: int) -> Any:
    """A layout that seeds of sar share and those of cross_entropy share less."""
    common = np.random.default_rng(99).normal(size=(6, 8))
    own = np.random.default_rng(seed + 10 * len(level)).normal(size=(6, 8))
    return common + (0.3 if arm == "sar" else 1.0) * own


def write_file(study: Path, trial: str, arm: str, level: str, seed: int) -> None:
    folder = study / "trials" / trial / "attempt-1"
    folder.mkdir(parents=True)
    means = class_means(arm, level, seed)
    arrays = {"class_means": means, "classifier_rows": means[:, ::-1] * 2, "pixels": np.arange(6)}
    arrays |= {"labels": np.arange(6), "features": means}
    arrays |= {"semantic_anchors": means + 1} if arm == "sar" else {}
    np.savez(folder / "geometry.npz", **arrays)


def write_study(writer: Any, levels: tuple[str, ...] = ("",), without: tuple[str, ...] = ()) -> Report:
    """Write a study of two arms with geometry; trials in ``without`` have no file."""
    writer.open(arms=("sar", "cross_entropy"), levels=levels, trials_per_arm=0, seeds=SEEDS)
    for level in levels:
        for arm in ("sar", "cross_entropy"):
            for seed in range(SEEDS):
                trial = f"{level}{arm}-{seed}"
                writer.claim(arm, level, seed, trial)
                metrics = {"test/miou": 0.2 + seed / 100, "probe/miou": 0.3, "geometry/slope/iou": 0.1}
                metrics |= {"geometry/features/nc1": NC1[arm][seed] + len(level)}
                metrics |= {"geometry/semantic_anchors/etf_distance": 0.5} if arm == "sar" else {}
                writer.finish(trial, metrics)
                if trial not in without:
                    write_file(writer.study, trial, arm, level, seed)
    return make_report(writer.study)


def column(table: Table, heading: str) -> dict[str, str]:
    return {row[0]: row[table.columns.index(heading)] for row in table.rows}


def tables(report: Report) -> list[Table]:
    assert report.geometry is not None
    return report.geometry.tables


def test_the_metrics_have_means_and_intervals_over_seeds(new_ledger: Begin) -> None:
    metrics, _ = tables(write_study(new_ledger()))
    assert metrics.columns == ["arm", "NC1, features", "slope of IoU", "probe/miou"]
    low, high = stats.t.interval(0.95, 3, np.mean(NC1["sar"]), stats.sem(NC1["sar"]))
    assert column(metrics, "NC1, features")["sar"] == interval(1.375, low, high, 2)
    assert column(metrics, "probe/miou") == dict.fromkeys(NC1, ".300 [.300, .300]")


def test_consistency_stands_by_vectors_with_the_paired_difference(new_ledger: Begin) -> None:
    _, consistency = tables(write_study(new_ledger()))
    assert consistency.columns == [
        "arm",
        "class means",
        "class means, minus sar",
        "class means, minus cross_entropy",
        "classifier rows",
        "semantic anchors",
        "features (CKA)",
    ]
    pairs = {
        arm: layout_pairs([{"x": class_means(arm, "", seed)} for seed in range(SEEDS)], "x") for arm in NC1
    }
    own, difference = jackknife(pairs["sar"]), jackknife(pairs["cross_entropy"] - pairs["sar"])
    assert own.value > 0.7 > jackknife(pairs["cross_entropy"]).value
    shown = column(consistency, "class means")["sar"].replace("[", "").replace("]", "").replace(",", "")
    assert [float(part) for part in shown.split()] == pytest.approx([own.value, own.low, own.high], abs=0.01)
    minus = column(consistency, "class means, minus sar")
    assert minus["sar"] == "-"
    parts = minus["cross_entropy"].replace("[", "").replace("]", "").replace(",", "").split()
    expected = [difference.value, difference.low, difference.high]
    assert [float(part) for part in parts] == pytest.approx(expected, abs=0.01)
    assert parts[0].startswith("-")
    assert column(consistency, "semantic anchors")["cross_entropy"] == "-"
    assert column(consistency, "semantic anchors")["sar"] != "-"
    assert (
        column(consistency, "features (CKA)")["sar"] > column(consistency, "features (CKA)")["cross_entropy"]
    )


def test_every_level_has_its_tables(new_ledger: Begin) -> None:
    report = write_study(new_ledger(), levels=("model=a", "model=bb"))
    assert [table.title for table in tables(report)] == [
        "Report features (model=a)",
        "Consistency over seeds (model=a)",
        "Report features (model=bb)",
        "Consistency over seeds (model=bb)",
    ]
    first, second = (column(tables(report)[place], "class means") for place in (1, 3))
    assert first != second
    first, second = (column(tables(report)[place], "NC1, features") for place in (0, 2))
    assert first["sar"].startswith("8.38 ")
    assert second["sar"].startswith("9.38 ")


def test_trials_without_a_file_are_counted_and_left_out(new_ledger: Begin) -> None:
    report = write_study(new_ledger(), without=("sar-1", "sar-2"))
    assert report.geometry is not None
    assert report.geometry.notes[-1].endswith("no part in the consistency: 2 finished trials.")
    assert "[" not in column(tables(report)[1], "class means")["sar"]  # one pair has no interval
    assert "[" in column(tables(report)[1], "class means")["cross_entropy"]
    everything = tuple(f"{arm}-{seed}" for arm in NC1 for seed in range(SEEDS))
    assert len(tables(write_study(new_ledger("b"), without=everything))) == 1


def test_the_markdown_has_one_section_and_claims_nothing(new_ledger: Begin) -> None:
    text = to_markdown(write_study(new_ledger()))
    assert text.count("\n## Geometry\n") == 1
    section = text.partition("\n## Geometry\n")[2]
    assert "### Report features\n" in section
    assert "| cross_entropy |" in section
    assert "### Consistency over seeds\n" in section
    assert "\\*" not in section


def test_older_ledgers_have_no_section(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer)
    report = make_report(writer.study)
    assert report.geometry is None
    assert "Geometry" not in to_markdown(report)
