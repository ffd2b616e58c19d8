"""Geometry metrics by hand, their invariances, and their place in a confirm trial."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sarx.config.compose import compose
from sarx.data import class_counts, load_split
from sarx.training.geometry import (
    Scatter,
    add_samples,
    between_class,
    empty_scatter,
    etf_distance,
    frequency_slope,
    log_ratio,
    within_class,
)
from sarx.training.loop import train
from sarx.training.report import class_vectors, train_and_report

PER_VECTOR = {"mean_cosine", "max_cosine", "centred_mean_cosine", "centred_max_cosine", "etf_distance"}


def scatter_of(features, labels, num_classes):
    return add_samples(empty_scatter(num_classes, features.shape[1]), features, labels)


def blobs(num_classes=5, dim=8, count=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    centres = torch.randn(num_classes, dim, generator=generator)
    features = 3 * centres[labels] + torch.randn(count, dim, generator=generator)
    return features.double(), labels


def rotation(dim, seed=1):
    return torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed)).double()).Q


def simplex(num_classes, dim=None):
    """A simplex ETF around 0: rows of I - 1/C, in more dimensions if wanted."""
    rows = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    return rows if dim is None else torch.nn.functional.pad(rows, (0, dim - num_classes))


def test_two_classes_in_the_plane_by_hand():
    # Means (-2, 0) and (2, 0); within scatter: x 2 (of class 0), y 2 (of class 1), over 4 samples.
    features = torch.tensor([[-3.0, 0.0], [-1.0, 0.0], [2.0, 1.0], [2.0, -1.0]])
    scatter = scatter_of(features, torch.tensor([0, 0, 1, 1]), 2)
    assert scatter.counts.tolist() == [2, 2]
    assert scatter.means.tolist() == [[-2, 0], [2, 0]]
    assert scatter.within.tolist() == [[2, 0], [0, 2]]
    nc1, share = within_class(scatter)
    # S_W = diag(1/2, 1/2), S_B = diag(4, 0): tr(S_W S_B^+) / 2 = (1/2) (1/4) / 2.
    assert nc1 == pytest.approx(1 / 16)
    # Within 4 of a total of 4 + 4 * 4.
    assert share == pytest.approx(4 / 20)


def test_classes_count_alike_between_and_samples_alike_within():
    features = torch.tensor([[-1.0], [1.0], [-1.0], [1.0], [6.0]])
    nc1, share = within_class(scatter_of(features, torch.tensor([0, 0, 0, 0, 1]), 2))
    assert nc1 == pytest.approx((4 / 5) / 9 / 2)  # means 0 and 6, each 3 from the middle
    assert share == pytest.approx(4 / (4 + 4 * 1.2**2 + 4.8**2))


def test_within_class_equals_the_literal_formula():
    features, labels = blobs()
    x, y = features.numpy(), labels.numpy()
    means = np.stack([x[y == c].mean(0) for c in range(5)])
    centred = x - means[y]
    within = centred.T @ centred / len(x)
    spread = means - means.mean(0)
    nc1, share = within_class(scatter_of(features, labels, 5))
    assert nc1 == pytest.approx(np.trace(within @ np.linalg.pinv(spread.T @ spread / 5)) / 5)
    assert share == pytest.approx(np.trace(within) / x.var(0).sum())


@pytest.mark.parametrize("size", [1, 7, 150])
def test_streaming_equals_one_shot(size):
    features, labels = blobs()
    features += 1e4  # sums of squares would lose 8 digits here
    streamed = empty_scatter(5, 8)
    for start in range(0, len(labels), size):
        streamed = add_samples(streamed, features[start : start + size], labels[start : start + size])
    whole = scatter_of(features, labels, 5)
    assert torch.equal(streamed.counts, whole.counts)
    torch.testing.assert_close(streamed.means, whole.means, rtol=1e-12, atol=0)
    torch.testing.assert_close(streamed.within, whole.within, rtol=1e-9, atol=1e-6)


def test_long_inputs_are_cut_without_a_trace(monkeypatch):
    features, labels = blobs()
    whole = scatter_of(features, labels, 5)
    monkeypatch.setattr("sarx.training.geometry.CHUNK", 33)
    cut = scatter_of(features, labels, 5)
    torch.testing.assert_close(cut.within, whole.within)
    assert not torch.equal(cut.within, whole.within)  # the division did happen


def test_ignored_samples_do_not_count():
    features, labels = blobs()
    marked = labels.clone()
    marked[::3] = 255
    kept = scatter_of(features[marked != 255], labels[marked != 255], 5)
    torch.testing.assert_close(scatter_of(features, marked, 5).within, kept.within)


def test_within_class_ignores_rotation_scale_shift_and_absent_classes():
    features, labels = blobs()
    expected = within_class(scatter_of(features, labels, 5))
    moved = features @ rotation(8) * 7 + 3
    assert within_class(scatter_of(moved, labels, 5)) == pytest.approx(expected)
    assert within_class(scatter_of(features, labels + 2, 9)) == pytest.approx(expected)
    assert within_class(scatter_of(features * torch.arange(1.0, 9.0), labels, 5)) != pytest.approx(expected)


def test_collapsed_classes_have_nothing_within_and_equal_means_nothing_between():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    nc1, share = within_class(scatter_of(simplex(3)[labels].float(), labels, 3))
    assert nc1 == pytest.approx(0, abs=1e-12)
    assert share == pytest.approx(0, abs=1e-12)
    same = torch.tensor([[0.1, 1.1], [0.1, -0.9]] * 3)
    nc1, share = within_class(scatter_of(same.double() + torch.tensor([[0.0]] * 4 + [[1e-9]] * 2), labels, 3))
    assert math.isnan(nc1)
    assert share == pytest.approx(1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_cannot_be_measured_is_nan_and_no_error(bad):
    features, labels = blobs()
    features[3, 2] = bad
    assert all(map(math.isnan, within_class(scatter_of(features, labels, 5))))
    assert all(map(math.isnan, within_class(empty_scatter(5, 8))))
    assert all(map(math.isnan, within_class(scatter_of(blobs()[0], torch.zeros(400), 5))))
    for vectors in (torch.zeros(4, 3), torch.eye(3)[:1], torch.full((4, 3), bad)):
        assert between_class(vectors).keys() == PER_VECTOR
        assert all(map(math.isnan, between_class(vectors).values()))


@pytest.mark.parametrize("num_classes", [2, 3, 11])
def test_a_simplex_frame_is_one_wherever_it_lies(num_classes):
    frame = simplex(num_classes, num_classes + 4) @ rotation(num_classes + 4) * 5 + 2
    found = between_class(frame)
    assert found["etf_distance"] == pytest.approx(0, abs=1e-12)
    assert found["centred_mean_cosine"] == pytest.approx(-1 / (num_classes - 1))
    assert found["centred_max_cosine"] == pytest.approx(-1 / (num_classes - 1))
    assert found["mean_cosine"] > 0  # the shift of 2 makes all rows point the same way


def test_between_class_by_hand():
    found = between_class(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]))
    assert found["mean_cosine"] == pytest.approx(-1 / 3)
    assert found["max_cosine"] == pytest.approx(0)
    # Minus the mean (1/3, 1): (5/3, -1), (-1/3, 2), (-4/3, -1).
    a, b, c = (np.array(v) / 3 for v in ((5.0, -3.0), (-1.0, 6.0), (-4.0, -3.0)))
    pairs = [u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in ((a, b), (a, c), (b, c))]
    assert found["centred_mean_cosine"] == pytest.approx(np.mean(pairs))
    assert found["centred_max_cosine"] == pytest.approx(max(pairs))


def test_the_frame_distance_sees_lengths_as_well_as_angles():
    lengths = torch.tensor([[1.0], [1.0], [4.0]])
    assert etf_distance(simplex(3) * lengths) > 0.1
    # Points on a line, M = (-3, 1, 2): G = M M^T, whose norm is 14, and E = I - 1/3.
    line = torch.tensor([[-3.0], [1.0], [2.0]], dtype=torch.float64)
    gram = np.outer([-3, 1, 2], [-3, 1, 2]) / 14
    ideal = (np.eye(3) - 1 / 3) / math.sqrt(2)
    assert etf_distance(line) == pytest.approx(np.linalg.norm(gram - ideal))


def test_between_class_leaves_out_classes_without_a_vector():
    vectors = blobs()[0][:4]
    holes = torch.cat([vectors[:2], torch.zeros(1, 8), vectors[2:], torch.full((1, 8), math.nan)])
    assert between_class(holes) == pytest.approx(between_class(vectors))


def test_equal_vectors_have_no_frame():
    vectors = torch.tensor([0.1, 0.7, 0.3], dtype=torch.float64).repeat(7, 1)
    vectors[0] += 1e-12  # as rounding would leave them
    found = between_class(vectors)
    assert found["mean_cosine"] == pytest.approx(1)
    assert found["centred_mean_cosine"] == 0
    assert math.isnan(found["etf_distance"])


def test_a_slope_and_its_error_by_hand():
    counts = torch.tensor([math.e, math.e**2, math.e**3, 0.0, 9.0])
    values = torch.tensor([1.0, 3.0, 4.0, 100.0, 100.0])
    counted = torch.tensor([True, True, True, True, False])
    slope, error = frequency_slope(counts, values, counted)
    assert slope == pytest.approx(1.5)
    assert error == pytest.approx(math.sqrt((1 / 6) / 1 / 2))  # residuals -1/6, 1/3, -1/6; Sxx 2


def test_a_slope_needs_classes_of_different_frequency():
    everything = torch.ones(7, dtype=torch.bool)
    equal = torch.tensor([200 + 1e-9] + [200.0] * 6, dtype=torch.float64)  # as rounding would leave them
    assert all(map(math.isnan, frequency_slope(equal, torch.rand(7), everything)))
    two = torch.tensor([True, True, False])
    slope, error = frequency_slope(torch.tensor([1.0, math.e, 5.0]), torch.tensor([0.0, 2.0, 9.0]), two)
    assert slope == pytest.approx(2)
    assert math.isnan(error)


def test_a_class_never_predicted_has_a_finite_ratio():
    ratio = log_ratio(torch.tensor([0, 20]), torch.tensor([10, 10]))
    assert ratio.tolist() == pytest.approx([math.log(0.5 / 10.5), math.log(20.5 / 10.5)])


def confirm(config, folder=None):
    *_, last = train_and_report(config, folder=folder)
    return last


def test_a_confirm_trial_has_the_metrics_and_the_file(tiny, tmp_path):
    config = tiny(role="confirm", regularizer="sar", regularizer__gate="always")
    last = confirm(config, tmp_path)
    found = {key for key in last.metrics if key.startswith(("geometry/", "probe/"))}
    expected = {f"{which}/{key}" for which in ("class_means", "classifier_rows") for key in PER_VECTOR}
    expected |= {f"semantic_anchors/{key}" for key in PER_VECTOR}
    expected |= {"features/nc1", "features/within_share"}
    for name in ("iou", "classifier_norm", "predicted_ratio"):
        expected |= {f"slope/{name}", f"slope/{name}_se"}
    assert found == {f"geometry/{key}" for key in expected} | {"probe/miou"}
    assert all(math.isfinite(last.metrics[key]) for key in found)
    with np.load(tmp_path / "geometry.npz") as arrays:
        stored = dict(arrays)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert stored["class_means"].shape == stored["classifier_rows"].shape == (11, 64)
    model = last.module.model
    assert np.array_equal(stored["classifier_rows"], model.classifier.weight.detach().flatten(1).numpy())
    assert np.array_equal(stored["semantic_anchors"], last.module.regularizer.semantic_anchors.numpy())
    labels = load_split(config.data, config.seed, "train").labels
    assert np.array_equal(stored["train_counts"], class_counts(labels, 11))
    assert stored["iou"][3] == pytest.approx(last.metrics["test/iou/digit_2"])
    assert stored["features"].shape == (len(stored["labels"]), 64)


def test_arms_without_anchors_have_no_keys_of_them_and_the_same_pixels(tiny, tmp_path):
    plain = confirm(tiny(role="confirm", regularizer="none", seed=3), tmp_path / "none")
    prototypes = confirm(tiny(role="confirm", regularizer="prototype_ema", seed=4), tmp_path / "prototype")
    assert not any("anchor" in key or "prototype" in key for key in plain.metrics)
    assert "geometry/prototypes/mean_cosine" in prototypes.metrics
    files = [np.load(tmp_path / name / "geometry.npz") for name in ("none", "prototype")]
    assert np.array_equal(files[0]["pixels"], files[1]["pixels"])
    assert np.array_equal(files[0]["labels"], files[1]["labels"])
    assert not np.array_equal(files[0]["features"], files[1]["features"])
    assert not np.array_equal(files[0]["train_counts"], files[1]["train_counts"])
    counts = np.bincount(files[0]["labels"], minlength=11)
    assert counts.max() <= 2000 // 11
    assert set(counts) != {0}
    for file in files:
        file.close()


def test_the_stored_features_are_those_of_the_stored_pixels(tiny, tmp_path, monkeypatch):
    from sarx.data import describe, split_names
    from sarx.training import report
    from sarx.training.evaluation import normalise

    monkeypatch.setattr("sarx.training.batches.BATCH", 7)  # several batches
    config = tiny(role="confirm", regularizer="none")
    model = confirm(config, tmp_path).module.model.eval()
    split = report.load_split(config.data, config.seed, split_names(config.data)[1])
    data = describe(config.data, config.seed)
    with torch.no_grad():
        features = model(normalise(torch.tensor(split.images), data, torch.device("cpu"))).features
    rows = features.permute(0, 2, 3, 1).reshape(-1, 64).numpy()
    labels = split.labels[:, ::4, ::4].reshape(-1)  # the nearest rule takes the first of every 4 pixels
    with np.load(tmp_path / "geometry.npz") as file:
        np.testing.assert_allclose(file["features"], rows[file["pixels"]], rtol=1e-4, atol=1e-4)
        assert np.array_equal(file["labels"], labels[file["pixels"]])
        for c in set(labels):
            mean = rows[labels == c].mean(0)
            np.testing.assert_allclose(file["class_means"][c], mean, rtol=1e-3, atol=1e-4)
        assert all(np.isnan(file["class_means"][c]).all() for c in set(range(11)) - set(labels))


def test_search_has_none_of_it_and_evaluation_is_unchanged_by_it(tiny, tmp_path):
    results = [result.metrics for result in train(tiny(), folder=tmp_path / "search")]
    assert not any(key.startswith(("geometry/", "probe/")) for metrics in results for key in metrics)
    assert not (tmp_path / "search" / "geometry.npz").exists()
    state = torch.get_rng_state()
    *_, last = train_and_report(tiny(role="confirm"), folder=tmp_path / "confirm")
    assert torch.equal(state, torch.get_rng_state())
    assert last.module.model.training  # as the last training step left it
    shared = [key for key in results[-1] if not key.startswith("time/")]
    assert [last.metrics[key] for key in shared] == [results[-1][key] for key in shared]


def test_a_trial_reported_again_gives_the_same_numbers(tiny, tmp_path):
    config = tiny(role="confirm", regularizer="sar", regularizer__gate="always")
    first = confirm(config, tmp_path)
    (again,) = train_and_report(config, resume=[tmp_path])
    keys = [key for key in first.metrics if key.startswith(("geometry/", "probe/"))]
    assert len(keys) > 20
    assert [again.metrics[key] for key in keys] == [first.metrics[key] for key in keys]


def test_classification_has_its_own_names():
    config = compose(
        {
            "data": "digits_lt",
            "model": "pool_test_efficientnet",
            "role": "confirm",
            "data.num_train": 200,
            "training.steps": 2,
            "training.eval_every": 2,
        }
    )
    metrics = confirm(config).metrics
    assert 0 < metrics["probe/mean_accuracy"] <= 1
    assert math.isfinite(metrics["geometry/slope/accuracy"])
    assert math.isfinite(metrics["geometry/features/nc1"])
    assert not {"probe/miou", "geometry/slope/iou"} & metrics.keys()


def test_a_classifier_that_is_not_linear_has_no_rows():
    model = torch.nn.Module()
    scatter = Scatter(torch.tensor([1.0, 0.0]), torch.ones(2, 3), torch.zeros(3, 3))
    for classifier, rows in (
        (torch.nn.Linear(3, 2), (2, 3)),
        (torch.nn.Conv2d(3, 2, 1), (2, 3)),
        (torch.nn.Conv2d(3, 2, 3), None),
        (torch.nn.Sequential(torch.nn.Linear(3, 2)), None),
    ):
        model.classifier = classifier
        vectors = class_vectors(model, torch.nn.Identity(), scatter)
        assert vectors["class_means"][0].tolist() == [1, 1, 1]
        assert vectors["class_means"][1].isnan().all()
        assert tuple(vectors["classifier_rows"].shape) == rows if rows else "classifier_rows" not in vectors


def test_a_regularizer_may_have_several_sets_of_class_vectors_or_several_per_class():
    model, regularizer = torch.nn.Module(), torch.nn.Module()
    model.classifier = torch.nn.Linear(3, 2)
    regularizer.register_buffer("semantic_anchors", torch.ones(2, 3))
    regularizer.register_buffer("centres", torch.zeros(2, 3))
    regularizer.register_buffer("prototypes", torch.ones(2, 5, 3))
    vectors = class_vectors(model, regularizer, empty_scatter(2, 3))
    assert list(vectors) == ["class_means", "classifier_rows", "semantic_anchors", "centres"]
