"""The table over images and seeds: from the files of confirm trials, or the reason against it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.errors import UserError
from analysis.report import make_report

Begin = Callable[..., Any]
CLASSES = ("background", "one", "two")
IMAGES, SEEDS = 30, 4
MATRIX = tuple[np.ndarray, ...]


def confusions(rng: np.random.Generator, quality: float) -> np.ndarray:
    """Return a confusion matrix of every image (N, C, C): rows are labels."""
    labels = rng.integers(0, 40, (IMAGES, len(CLASSES))) * (rng.random((IMAGES, len(CLASSES))) < 0.8)
    labels[:, 0] += 1
    wrong = (1 - quality) / (len(CLASSES) - 1)
    rows = [[np.where(np.arange(3) == c, quality, wrong) for c in range(3)] for _ in range(IMAGES)]
    return np.array(
        [
            [rng.multinomial(n, p) for n, p in zip(*pair, strict=True)]
            for pair in zip(labels, rows, strict=True)
        ]
    )


def miou(matrix: np.ndarray, members: tuple[int, ...] = (1, 2)) -> float:
    """Return the mean IoU of some classes, class by class as a reader would."""
    found = []
    for c in members:
        union = matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]
        found.append(matrix[c, c] / max(union, 1))
    return float(np.mean(found))


def write_file(folder: Path, matrices: np.ndarray, attempt: int = 1) -> Path:
    """Write ``images.parquet`` as the training does."""
    rows = [
        (image, c, int(matrix[c, c]), int(matrix[:, c].sum()), int(matrix[c].sum()))
        for image, matrix in enumerate(matrices)
        for c in range(len(matrix))
        if matrix[:, c].sum() + matrix[c].sum()
    ]
    schema = {
        "image": pl.Int32,
        "class": pl.Int16,
        "intersection": pl.Int64,
        "predicted": pl.Int64,
        "true": pl.Int64,
    }
    file = folder / f"attempt-{attempt}" / "images.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(file)
    return file


def metrics_of_matrix(matrix: np.ndarray) -> dict[str, float]:
    """Return what a confirm trial reports: ``background`` is apart."""
    per_class = {f"test/iou/{name}": miou(matrix, (c,)) for c, name in enumerate(CLASSES)}
    return {"test/miou": miou(matrix), **per_class, "test/background_iou": miou(matrix, (0,))}


def study(writer: Any, files: bool = True, **report: Any) -> dict[tuple[str, int], np.ndarray]:
    """Write a study of two arms with everything that its trials leave."""
    rng = np.random.default_rng(6)
    writer.open(
        arms=("sar", "ce"),
        levels=("",),
        trials_per_arm=0,
        seeds=SEEDS,
        report={"primary": "test/miou", **report},
    )
    found = {}
    for seed in range(SEEDS):
        for arm, quality in (("sar", 0.8), ("ce", 0.7)):
            matrices = confusions(np.random.default_rng(1), quality + 0.02 * rng.normal())
            name = f"{arm}-{seed}"
            writer.claim(arm, "", seed, name)
            writer.finish(name, metrics_of_matrix(matrices.sum(axis=0)))
            if files:
                write_file(writer.study / "trials" / name, matrices)
            found[arm, seed] = matrices
    return found


def table_of(report: Any) -> Any:
    return next((table for table in report.extras if "over images x seeds" in table.title), None)


def literal_half(found: dict[tuple[str, int], np.ndarray]) -> float:
    """Return the variance of the mean difference by leaving out one image, and one seed, at a time."""

    def difference(images: list[int], seeds: list[int]) -> float:
        each = [
            miou(found["ce", k][images].sum(axis=0)) - miou(found["sar", k][images].sum(axis=0))
            for k in seeds
        ]
        return float(np.mean(each))

    every, seeds = list(range(IMAGES)), list(range(SEEDS))
    without_image = np.array([difference([j for j in every if j != i], seeds) for i in every])
    without_seed = np.array([difference(every, [j for j in seeds if j != k]) for k in seeds])
    return float(
        sum(
            (n - 1) / n * ((left - left.mean()) ** 2).sum()
            for n, left in ((IMAGES, without_image), (SEEDS, without_seed))
        )
    )


def test_the_interval_is_that_of_the_jackknife_and_gives_no_mark(new_ledger: Begin) -> None:
    writer = new_ledger()
    found = study(writer)
    report = make_report(writer.study)
    table = table_of(report)
    (row,) = table.rows
    cells = dict(zip(table.columns, row, strict=True))
    tidy = report.comparison.tidy.filter(arm="ce", metric="test/miou").row(0, named=True)
    assert float(cells["difference"]) == pytest.approx(tidy["diff"], abs=6e-4)
    bounds = [float(part.strip("[],")) for part in cells["95 % over seeds"].split()]
    assert bounds == pytest.approx([tidy["diff_lo"], tidy["diff_hi"]], abs=6e-4)
    low, high = (float(part.strip("[],")) for part in cells["95 % over images x seeds"].split())
    # What is left (neither image nor seed) is taken off once; t quantiles are between 1.96 and that of 3.
    assert 0.7 * 2 * 1.96 * literal_half(found) ** 0.5 < high - low < 2 * 3.19 * literal_half(found) ** 0.5
    assert (cells["images"], cells["seeds"]) == ("30", "4")
    assert not table.bold
    assert "decides no verdict" in " ".join(table.notes)


def test_the_highest_attempt_counts(new_ledger: Begin) -> None:
    writer = new_ledger()
    found = study(writer, files=False)
    for (arm, seed), matrices in found.items():
        folder = writer.study / "trials" / f"{arm}-{seed}"
        write_file(folder, matrices[::-1] * 0 + 1, attempt=9)
        write_file(folder, matrices, attempt=10)
    assert table_of(make_report(writer.study)) is not None


def test_counts_that_do_not_give_the_recorded_score_are_refused(new_ledger: Begin) -> None:
    writer = new_ledger()
    found = study(writer)
    write_file(writer.study / "trials" / "ce-1", found["ce", 1][:-1])
    report = make_report(writer.study)
    assert table_of(report) is None
    assert any("the counts of trial ce-1 give a test/miou of" in line for line in report.caption)


def test_arms_that_saw_other_images_are_refused(new_ledger: Begin) -> None:
    writer = new_ledger()
    found = study(writer)
    for seed in range(SEEDS):
        file = write_file(writer.study / "trials" / f"ce-{seed}", found["ce", seed])
        pl.read_parquet(file).with_columns(pl.col("image") + 1).write_parquet(file)
    report = make_report(writer.study)
    assert any("ce and sar did not see the same images" in line for line in report.caption)


def test_geometry_says_which_classes_are_scored(new_ledger: Begin) -> None:
    writer = new_ledger()
    study(writer)
    for file in writer.study.glob("trials/*/attempt-1"):
        np.savez(file / "geometry.npz", score_classes=np.array([0, 1]), confusion=np.eye(3))
    report = make_report(writer.study)
    assert table_of(report) is None  # the recorded score is that of classes 1 and 2
    assert any("No interval over images x seeds: the counts of trial" in line for line in report.caption)


def test_studies_without_files_and_other_metrics_say_so(new_ledger: Begin) -> None:
    writer = new_ledger()
    study(writer, files=False)
    report = make_report(writer.study)
    assert table_of(report) is None
    assert "Counts per report image were not stored: intervals are over seeds alone." in report.caption
    writer = new_ledger("tail")
    study(writer, primary="test/iou/one")
    assert any(
        "test/iou/one does not follow from counts" in line for line in make_report(writer.study).caption
    )
    writer = new_ledger("empty")
    writer.open(arms=("sar", "ce"), levels=("",))
    assert not any("report image" in line for line in make_report(writer.study).caption)


def test_some_trials_without_a_file_are_counted(new_ledger: Begin) -> None:
    writer = new_ledger()
    study(writer)
    (writer.study / "trials" / "ce-3" / "attempt-1" / "images.parquet").unlink()
    report = make_report(writer.study)
    assert table_of(report).rows[0][-2] == "3"
    assert "Without counts per image, so not in the intervals over images: 1 trials." in report.caption


def test_a_damaged_file_is_named(new_ledger: Begin) -> None:
    writer = new_ledger()
    study(writer)
    file = writer.study / "trials" / "ce-0" / "attempt-1" / "images.parquet"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"ce-0/attempt-1/images\.parquet is damaged"):
        make_report(writer.study)


def test_recall_of_classification(new_ledger: Begin) -> None:
    writer = new_ledger()
    rng = np.random.default_rng(0)
    report = {"primary": "test/mean_accuracy"}
    writer.open(arms=("sar", "ce"), levels=("",), trials_per_arm=0, seeds=3, report=report)
    labels = rng.integers(0, 3, 60)
    for seed in range(3):
        for arm in ("sar", "ce"):
            said = np.where(rng.random(60) < 0.7, labels, rng.integers(0, 3, 60))
            matrices = np.zeros((60, 3, 3), dtype=int)
            matrices[np.arange(60), labels, said] = 1
            recalls = [float((said[labels == c] == c).mean()) for c in range(3)]
            writer.claim(arm, "", seed, f"{arm}-{seed}")
            names = {f"test/accuracy/{name}": value for name, value in zip("abc", recalls, strict=True)}
            writer.finish(f"{arm}-{seed}", {"test/mean_accuracy": float(np.mean(recalls)), **names})
            write_file(writer.study / "trials" / f"{arm}-{seed}", matrices)
    table = table_of(make_report(writer.study))
    assert table.rows[0][-3:-1] == ["60", "3"]
