"""Names of classes: taken from the ledger only where the order is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.errors import UserError
from analysis.figures.class_arrays import class_names, per_class
from analysis.figures.class_gain import Decades, class_gain
from analysis.figures.confusion import confusion_plot, shares

Begin = Callable[..., Any]


def recorded(values: dict[str, float]) -> pl.DataFrame:
    return pl.DataFrame({"metric": list(values), "value": list(values.values())})


def test_names_are_in_the_order_of_the_ledger_if_the_values_agree() -> None:
    scores = {"val/iou/b": 0.9, "test/iou/b": 0.1, "test/iou/a": 0.2, "test/b_iou": 0.1, "test/a_iou": 0.7}
    values = np.array([0.1, 0.2], dtype=np.float32)
    assert class_names(recorded(scores), "test", "iou", values) == (["b", "a"], [True, False])


@pytest.mark.parametrize("values", [[0.2, 0.1], [0.1], [0.1, 0.2, 0.3]])
def test_names_are_not_known_if_values_differ(values: list[float]) -> None:
    scores = {"test/iou/b": 0.1, "test/iou/a": 0.2}
    assert class_names(recorded(scores), "test", "iou", np.float32(values)) is None


def test_classes_get_numbers_where_their_order_is_not_known(study: Begin) -> None:
    written = study(arms=("sar", "no_pull"), levels=("",), seeds=2, trials=2)
    for file in (written.writer.study / "trials").glob("*/attempt-1/geometry.npz"):
        arrays = dict(np.load(file))
        np.savez(file, **{**arrays, "iou": arrays["iou"][::-1]})
    found = per_class(written.sources, "")
    assert found is not None
    assert found.names[:2] == ["class 0", "class 1"]
    assert not any(found.unscored)


def test_files_without_a_confusion_matrix_give_no_figure_of_it(study: Begin) -> None:
    written = study(arms=("sar", "no_pull"), levels=("",), seeds=2, trials=2)
    for file in (written.writer.study / "trials").glob("*/attempt-1/geometry.npz"):
        arrays = dict(np.load(file))
        del arrays["confusion"]
        np.savez(file, **arrays)
    assert confusion_plot(written.sources) == []
    assert len(class_gain(written.sources)) == 1


def test_a_damaged_file_is_named(study: Begin) -> None:
    written = study(arms=("sar", "no_pull"), levels=("",), seeds=2, trials=2)
    file = next((written.writer.study / "trials").glob("*/attempt-1/geometry.npz"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"geometry\.npz is damaged"):
        class_gain(written.sources)


def test_trials_of_another_number_of_classes_are_left_out(study: Begin) -> None:
    written = study(arms=("sar", "no_pull"), levels=("",), seeds=3, trials=2)
    file = written.writer.study / "trials" / "c--sar-0" / "attempt-1" / "geometry.npz"
    np.savez(file, iou=np.zeros(3, np.float32), train_counts=np.ones(3, np.int64))
    found = per_class(written.sources, "")
    assert found is not None
    assert found.seeds("sar", "iou") == {1, 2}


def test_a_class_without_labels_has_no_shares() -> None:
    counts = np.array([[[1.0, 3.0], [0.0, 0.0]]])
    assert np.array_equal(shares(counts), [[[0.25, 0.75], [np.nan, np.nan]]], equal_nan=True)


def test_classes_that_never_occur_stand_left_of_the_rarest() -> None:
    decades = Decades.of(np.array([0.0, 10.0, 1000.0]))
    zero, ten, thousand = decades.shares(np.array([0.0, 10.0, 1000.0]))
    assert (zero, thousand) == (0.0, 1.0)
    assert ten == pytest.approx(0.5 / 2.5)
    assert [text for _, text in decades.ticks()] == ["0", "10", "100", "1,000"]
    assert [share for share, _ in decades.ticks()] == pytest.approx([0, 0.2, 0.6, 1])
