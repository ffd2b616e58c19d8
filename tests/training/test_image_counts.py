"""Counts per image and class: against a literal count, and as what a confirm trial leaves behind."""

import numpy as np
import pytest
import torch
from pyarrow import parquet

from sarx.training.image_counts import ImageCounts
from sarx.training.report import train_and_report


def literal(labels, predictions, num_classes, ignore_index):
    rows = []
    for image, (label, prediction) in enumerate(zip(labels, predictions, strict=True)):
        pairs = [(a, b) for a, b in zip(label.flatten(), prediction.flatten(), strict=True)]
        pairs = [(int(a), int(b)) for a, b in pairs if a != ignore_index]
        for c in range(num_classes):
            right = sum(a == b == c for a, b in pairs)
            predicted, true = sum(b == c for _, b in pairs), sum(a == c for a, _ in pairs)
            if predicted or true:
                rows.append((image, c, right, predicted, true))
    return rows


@pytest.mark.parametrize("shape", [(9, 5, 4), (9,)])
def test_equal_to_a_literal_count_whatever_the_batches_and_their_order(shape):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, shape).astype(np.uint8)
    labels[rng.random(shape) < 0.2] = 255
    predictions = rng.integers(0, 6, shape)
    counts = ImageCounts(6, 255)
    for indices in ([7, 2, 0], [1], [8, 3, 4, 5, 6]):
        counts.add(torch.tensor(indices), torch.tensor(labels[indices]), torch.tensor(predictions[indices]))
    found = counts.arrays()
    assert list(found) == ["image", "class", "intersection", "predicted", "true"]
    assert list(zip(*(values.tolist() for values in found.values()), strict=True)) == literal(
        labels, predictions, 6, 255
    )


@pytest.mark.parametrize(
    ("options", "score"),
    [
        ({"regularizer": "sar", "regularizer__gate": "always"}, "test/miou"),
        ({"regularizer": "none", "loss": "logit_adjusted"}, "test/miou"),
        (
            {"regularizer": "none", "data": "digits_lt", "model": "pool_test_efficientnet"},
            "test/mean_accuracy",
        ),
    ],
)
def test_the_score_of_a_confirm_trial_follows_from_its_file(tiny, tmp_path, options, score):
    *_, last = train_and_report(tiny(role="confirm", **options), folder=tmp_path)
    table = parquet.read_table(tmp_path / "images.parquet").to_pydict()
    with np.load(tmp_path / "geometry.npz") as file:
        confusion, scored = file["confusion"], file["score_classes"]
    size = len(confusion)
    right, predicted, true = (
        np.bincount(table["class"], table[name], size) for name in ("intersection", "predicted", "true")
    )
    assert np.array_equal(right, confusion.diagonal())
    assert np.array_equal(predicted, confusion.sum(0))
    assert np.array_equal(true, confusion.sum(1))
    below = true if score == "test/mean_accuracy" else predicted + true - right
    values = right / np.maximum(below, 1)
    assert values[scored].mean() == pytest.approx(last.metrics[score], abs=1e-12)
    assert true.sum() > 0
    assert len(set(table["image"])) == max(table["image"]) + 1


def test_search_trials_leave_none(tiny, tmp_path):
    from sarx.training.loop import train

    for _ in train(tiny(), folder=tmp_path):
        pass
    assert not (tmp_path / "images.parquet").exists()
