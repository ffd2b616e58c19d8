"""Scores of every class: head to tail where the file agrees with the result, never tested."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.report import make_report
from analysis.table import Table

Begin = Callable[..., Any]
CLASSES = ("road", "zebra", "bike")  # in the order of the data set
COUNTS = {0: [100, 900, 10], 1: [300, 700, 10]}  # by seed: zebra is the head


def study(writer: Any, kind: str = "iou", wrong: bool = False, classes: tuple[str, ...] = CLASSES) -> Any:
    """Write two arms of two seeds with per-class scores and the files of the reference's trials."""
    writer.open(arms=("sar", "plain"), levels=("",), seeds=2, trials_per_arm=0)
    for arm in ("sar", "plain"):
        for seed in (0, 1):
            trial = f"{arm}-{seed}"
            base = 0.2 + 0.1 * seed + (0.05 if arm == "plain" else 0.0)
            scores = {f"test/{kind}/{name}": base + 0.01 * n for n, name in enumerate(classes)}
            writer.claim(arm, "", seed, trial)
            writer.finish(trial, {"test/miou": base, **scores, "test/iou_extra": 0.0})
            kept = np.array([*scores.values()], dtype=np.float32)
            folder = Path(writer.study) / "trials" / trial / "attempt-1"
            folder.mkdir(parents=True)
            counts = np.array(COUNTS[seed]) if arm == "sar" else np.zeros(3)
            counts = counts if len(classes) == 3 else np.arange(len(classes))
            np.savez(folder / "geometry.npz", train_counts=counts, **{kind: kept[::-1] if wrong else kept})
    return make_report(writer.study)


def table_of(report: Any) -> Table:
    (table,) = [table for table in report.extras if table.title.startswith("Per class")]
    return table


@pytest.mark.parametrize("kind", ["iou", "accuracy"])
def test_classes_stand_head_to_tail_with_mean_and_paired_difference(new_ledger: Begin, kind: str) -> None:
    report = study(new_ledger(), kind)
    table = table_of(report)
    assert table.columns == ["class", "of training", "sar", "plain"]
    assert [row[:2] for row in table.rows] == [["zebra", "79.2 %"], ["road", "19.8 %"], ["bike", ".99 %"]]
    assert table.rows[0][2:] == [".260", ".310 (+.050)"]
    frame = report.frames["per_class.csv"]
    assert frame.filter(arm="plain")["class"].to_list() == ["zebra", "road", "bike"]
    assert frame.filter(arm="plain")["train_count"].to_list() == [800.0, 200.0, 10.0]
    row = frame.filter(arm="plain").row(1, named=True)
    assert (row["n"], row["n_pairs"], row["mean"], row["diff"]) == pytest.approx((2, 2, 0.30, 0.05))
    assert "p" not in frame.columns
    assert "No class is tested" in table.notes[0]


def test_a_file_that_does_not_agree_with_the_result_orders_nothing(new_ledger: Begin) -> None:
    report = study(new_ledger(), wrong=True)
    table = table_of(report)
    assert [row[0] for row in table.rows] == ["bike", "road", "zebra"]
    assert table.columns == ["class", "sar", "plain"]
    assert any("not on record" in note for note in table.notes)
    assert report.frames["per_class.csv"]["train_count"].null_count() == 6


def test_of_many_classes_both_ends_are_shown_and_the_file_has_all(new_ledger: Begin) -> None:
    names = tuple(f"c{n:03}" for n in range(150))
    report = study(new_ledger(), classes=names)
    shown = [row[0] for row in table_of(report).rows]
    assert shown == [f"c{n:03}" for n in (*range(149, 119, -1), *range(29, -1, -1))]
    assert "60 of 150 classes, from both ends; per_class.csv has all." in table_of(report).notes
    assert report.frames["per_class.csv"].height == 300


def test_without_class_scores_there_is_no_table(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    writer.open(arms=("sar",), levels=("",), seeds=1, trials_per_arm=0)
    writer.claim("sar", "", 0, "t")
    writer.finish("t", metrics_of(0.5))
    report = make_report(writer.study)
    assert "per_class.csv" not in report.frames
    assert not any(table.title.startswith("Per class") for table in report.extras)


def test_every_level_has_its_own_frequencies(new_ledger: Begin) -> None:
    writer = new_ledger()
    levels = ("data.imbalance=1", "data.imbalance=100")
    writer.open(arms=("sar",), levels=levels, seeds=1, trials_per_arm=0)
    for level, counts in zip(levels, ([10, 10, 12], [5, 900, 95]), strict=True):
        writer.claim("sar", level, 0, level)
        writer.finish(level, {"test/miou": 0.5, **{f"test/iou/{name}": 0.5 for name in CLASSES}})
        folder = Path(writer.study) / "trials" / level / "attempt-1"
        folder.mkdir(parents=True)
        np.savez(folder / "geometry.npz", train_counts=np.array(counts), iou=np.full(3, 0.5, np.float32))
    tables = [table for table in make_report(writer.study).extras if table.title.startswith("Per class")]
    assert [[row[0] for row in table.rows] for table in tables] == [
        ["bike", "road", "zebra"],
        ["zebra", "bike", "road"],
    ]
    assert [row[1] for row in tables[1].rows] == ["90 %", "9.5 %", ".5 %"]
    assert tables[1].title == "Per class, a description without tests (data.imbalance=100)"


def test_where_seeds_draw_which_class_is_frequent_a_class_is_a_rank(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(arms=("sar", "plain"), levels=("",), seeds=2, trials_per_arm=0)
    counts = {0: [9000, 900, 90, 9], 1: [9000, 9, 900, 90]}  # ground is the head of both
    scores = {0: [0.9, 0.8, 0.4, 0.0], 1: [0.9, 0.1, 0.6, 0.2]}
    for arm, lead in (("sar", 0.0), ("plain", 0.05)):
        for seed in (0, 1):
            trial = f"{arm}-{seed}"
            names = ("ground", "a", "b", "c")
            found = {
                f"test/iou/{name}": value + lead for name, value in zip(names, scores[seed], strict=True)
            }
            writer.claim(arm, "", seed, trial)
            writer.finish(trial, {"test/miou": 0.5, **found})
            folder = Path(writer.study) / "trials" / trial / "attempt-1"
            folder.mkdir(parents=True)
            kept = np.array([*found.values()], dtype=np.float32)
            np.savez(folder / "geometry.npz", train_counts=np.array(counts[seed]), iou=kept)
    report = make_report(writer.study)
    table = table_of(report)
    assert [row[0] for row in table.rows] == ["rank 1 (ground)", "rank 2", "rank 3", "rank 4"]
    frame = report.frames["per_class.csv"].filter(arm="sar")
    assert frame["train_count"].to_list() == [9000.0, 900.0, 90.0, 9.0]
    assert frame["mean"].to_list() == pytest.approx([0.9, 0.7, 0.3, 0.05])
    assert report.frames["per_class.csv"].filter(arm="plain")["diff"].to_list() == pytest.approx([0.05] * 4)
    assert any("Each seed draws anew which class is frequent" in note for note in table.notes)
