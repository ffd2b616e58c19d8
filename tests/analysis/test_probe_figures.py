"""Figures of features, class dependency and predictions, from synthetic files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from analysis.errors import UserError
from analysis.figures.class_dependency import class_dependency, frequency_order, mean_cosines
from analysis.figures.confirmed import class_names, in_groups, on_common_seed
from analysis.figures.drawing import Drawing, save
from analysis.figures.embedding import embedding, principal_plane
from analysis.figures.palette import COLOURS, IGNORED
from analysis.figures.qualitative import RIGHT, WRONG, qualitative
from analysis.report import make_report
from analysis.sources import Sources
from analysis.statistics import Array

Begin = Callable[..., Any]
CLASSES = 5
NAMES = [f"class_{c}" for c in range(CLASSES - 1)] + ["odd $x_1$"]
ARMS = ("cross_entropy", "sar")


def geometry(arm: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(7).normal(size=(CLASSES, 6)) * [4, 2, 1, 1, 1, 1]
    means = common + (0.2 if arm == "sar" else 0.6) * rng.normal(size=common.shape)
    labels = np.arange(60) % CLASSES
    arrays = {
        "class_means": means,
        "classifier_rows": means / 50,
        "features": (means[labels] + 0.3 * rng.normal(size=(60, 6))).astype(np.float32),
        "labels": labels,
        "pixels": np.arange(60),
        "train_counts": np.array([10, 1000, 5, 200, 50]),
    }
    return arrays | ({"semantic_anchors": means + 0.1} if arm == "sar" else {})


def write_study(
    writer: Any, arms: tuple[str, ...] = ARMS, seeds: int = 3, levels: tuple[str, ...] = ("",)
) -> Sources:
    """Write a study whose trials have geometry; names of classes stand in their metrics."""
    writer.open(arms=arms, levels=levels, trials_per_arm=0, seeds=seeds, reference=arms[0])
    for level in levels:
        for arm in arms:
            for seed in range(seeds):
                trial = f"{level}{arm}-{seed}"
                writer.claim(arm, level, seed, trial)
                scores = {"test/miou": 0.2 + seed / 100}
                writer.finish(trial, scores | {f"test/iou/{name}": 0.1 for name in NAMES})
                write_arrays(
                    writer.study / "trials" / trial / "attempt-1" / "geometry.npz", geometry(arm, seed)
                )
    return make_report(writer.study).sources


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def write_probe(
    study: Path, trials: list[str], count: int = 2, task: str = "segmentation", file: str = "images-0.npz"
) -> dict[str, Any]:
    """Write images with a corner that does not count, and predictions that are the label plus 1.

    In classification odd images are predicted right.
    """
    rng = np.random.default_rng(0)
    indices = np.arange(3, 3 + count)
    shown: dict[str, Any] = {"indices": indices, "names": np.array([f"{i}.png" for i in indices])}
    shown |= {"class_names": np.array(NAMES), "task": np.array(task), "ignore_index": np.array(255)}
    found: dict[str, Any] = {"indices": indices, "images": np.array(file)}
    for i in indices.tolist():
        shown[f"image_{i}"] = rng.integers(0, 256, size=(8, 12, 3), dtype=np.uint8)
        label = np.array(i % CLASSES) if task != "segmentation" else rng.integers(0, 4, size=(8, 12))
        right = task != "segmentation" and i % 2
        found[f"prediction_{i}"] = ((label + (not right)) % CLASSES).astype(np.uint8)
        if task == "segmentation":
            label[:2, :3] = 255
        shown[f"label_{i}"] = label
    write_arrays(study / "probe" / file, shown)
    for trial in trials:
        write_arrays(study / "probe" / trial / "predictions.npz", found)
    return shown | found


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def images(drawing: Drawing) -> list[Array]:
    return [np.asarray(one.get_array()) for panel in drawing.figure.axes for one in panel.images]


# ---------------------------------------------------------------- without files


def test_studies_without_files_have_none_of_these(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer)
    sources = make_report(writer.study).sources
    assert embedding(sources) == class_dependency(sources) == qualitative(sources) == []


def test_a_damaged_file_is_named(new_ledger: Begin) -> None:
    writer = new_ledger()
    sources = write_study(writer)
    write_probe(writer.study, ["sar-0"])
    (writer.study / "probe" / "sar-0" / "predictions.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"sar-0/predictions\.npz is damaged"):
        qualitative(sources)


# ---------------------------------------------------------------- which trials


def test_the_seed_that_most_arms_have_is_shown() -> None:
    found = {"a": {0: "a0", 2: "a2"}, "b": {1: "b1", 2: "b2"}, "c": {1: "c1"}}
    assert on_common_seed(found) == (1, {"b": "b1", "c": "c1"})
    assert on_common_seed({"a": {4: "x"}, "b": {}}) == (4, {"a": "x"})
    assert on_common_seed({"a": {}}) == (0, {})


def test_arms_are_divided_evenly_with_the_reference_in_each() -> None:
    assert [*in_groups(list("abcdef"))] == [list("abcdef")]
    assert [*in_groups(list("abcdefgh"))] == [list("abcde"), list("afgh")]
    assert [*in_groups(["a"])] == [["a"]]
    assert [*in_groups([])] == [[]]


def test_classes_are_named_as_the_scores_are(new_ledger: Begin) -> None:
    sources = write_study(new_ledger())
    assert class_names(sources, "sar-0", CLASSES) == NAMES
    assert class_names(sources, "sar-0", 2) == ["class 0", "class 1"]


# ---------------------------------------------------------------- embedding


def test_the_plane_is_that_of_the_covariance() -> None:
    features = np.random.default_rng(0).normal(size=(80, 5)) * [1, 5, 1, 3, 1] + 9
    plane = principal_plane(features)
    assert plane is not None
    values, vectors = np.linalg.eigh(np.cov(features.T))
    assert plane.shares == pytest.approx(values[::-1][:2] / values.sum())
    for axis, vector in zip(plane.axes.T, vectors.T[::-1], strict=False):
        assert abs(axis @ vector) == pytest.approx(1)
        assert axis[np.abs(axis).argmax()] > 0
    assert plane.place(features).mean(axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert plane.place(features).var(axis=0, ddof=1) == pytest.approx(values[::-1][:2])


@pytest.mark.parametrize("features", [np.ones((9, 3)), np.full((9, 3), np.nan), np.eye(2), np.ones((9, 1))])
def test_features_without_a_plane(features: Array) -> None:
    assert principal_plane(features) is None


def test_features_and_vectors_go_through_one_map(new_ledger: Begin) -> None:
    (drawing,) = embedding(write_study(new_ledger()))
    assert [panel.get_title() for panel in drawing.figure.axes] == [*ARMS]
    arrays = geometry("sar", 0)
    plane = principal_plane(arrays["features"])
    assert plane is not None
    dots, *marks = drawing.figure.axes[1].collections
    assert np.allclose(dots.get_offsets(), plane.place(arrays["features"]))
    assert np.allclose(dots.get_facecolors()[7, :3], to_rgb(COLOURS[2]))
    lengths = np.linalg.norm(arrays["class_means"], axis=1)
    rows = arrays["classifier_rows"]
    scaled = rows * lengths.mean() / np.linalg.norm(rows, axis=1).mean()
    expected = [scaled, arrays["semantic_anchors"], arrays["class_means"]]
    for mark, vectors in zip(marks, expected, strict=True):
        assert np.allclose(mark.get_offsets(), plane.place(vectors))
    assert len(drawing.figure.axes[0].collections) == 3  # cross-entropy has no anchors
    assert f"({100 * plane.shares[0]:.0f} %)" in drawing.figure.axes[1].get_xlabel()
    assert texts(drawing.figure) == ["class mean", "semantic anchor", "classifier row", *NAMES]


def test_a_class_without_pixels_and_features_that_broke_are_left_out(new_ledger: Begin) -> None:
    writer = new_ledger()
    sources = write_study(writer)
    arrays = geometry("sar", 0)
    arrays["class_means"][2] = np.nan
    file = writer.study / "trials" / "sar-0" / "attempt-1" / "geometry.npz"
    write_arrays(file, arrays)
    means = embedding(sources)[0].figure.axes[1].collections[-1]
    assert len(means.get_offsets()) == CLASSES - 1
    arrays["features"][0] = np.inf
    write_arrays(file, arrays)
    (drawing,) = embedding(sources)
    assert [panel.get_title() for panel in drawing.figure.axes if panel.get_visible()] == ["cross_entropy"]


# ---------------------------------------------------------------- class dependency


def test_mean_cosines_by_hand() -> None:
    first = np.array([[1.0, 0.0], [0.0, 2.0], [np.nan, 1.0]])
    second = np.array([[3.0, 3.0], [0.0, 1.0], [-1.0, 0.0]])
    half = np.sqrt(0.5)
    found = mean_cosines([first, second])
    assert found == pytest.approx(np.array([[1, half / 2, -half], [half / 2, 1, 0], [-half, 0, 1]]))
    assert np.isnan(mean_cosines([first])[2]).all()


def test_classes_are_ordered_by_mean_log_frequency() -> None:
    assert frequency_order([np.array([0, 100, 10]), np.array([1000, 100, 0])]).tolist() == [1, 0, 2]


def test_the_matrices_are_ordered_and_the_claim_is_in_the_caption(new_ledger: Begin) -> None:
    sources = write_study(new_ledger())
    (drawing,) = class_dependency(sources)
    order = [1, 3, 4, 0, 2]
    means = [geometry("cross_entropy", seed)["class_means"] for seed in range(3)]
    expected = sum(
        np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in rows[order]] for a in rows[order]])
        for rows in means
    )
    assert images(drawing)[0] == pytest.approx(expected / 3)
    assert len(images(drawing)) == 3  # class means of two arms, anchors of one
    assert [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()] == [
        NAMES[c] for c in order
    ]
    assert drawing.caption.count("sar minus cross_entropy: +") == 1


def test_levels_and_many_arms_have_drawings_of_their_own(new_ledger: Begin) -> None:
    writer = new_ledger()
    arms = ("cross_entropy", *(f"arm_{i}" for i in range(6)))
    sources = write_study(writer, arms=arms, seeds=1, levels=("model=a", "model=b"))
    write_probe(
        writer.study, [f"{level}{arm}-0" for level in ("model=a", "model=b") for arm in arms], count=7
    )
    for make, each in ((embedding, 2), (class_dependency, 2), (qualitative, 4)):
        drawings = make(sources)
        assert len(drawings) == 2 * each
        assert len({drawing.name for drawing in drawings}) == 2 * each
        assert ["model=a" in drawing.title for drawing in drawings] == [True] * each + [False] * each


# ---------------------------------------------------------------- predictions


def test_label_maps_are_painted_in_the_colours_of_their_classes(new_ledger: Begin) -> None:
    writer = new_ledger()
    sources = write_study(writer)
    arrays = write_probe(writer.study, ["cross_entropy-1", "sar-1"])
    (drawing,) = qualitative(sources)
    assert "confirm seed 1" in drawing.title
    assert "Images: 3.png, 4.png." in drawing.caption
    shown = images(drawing)
    assert len(shown) == 2 * 4
    assert np.array_equal(shown[0], arrays["image_3"])
    label = arrays["label_3"]
    for row, column in ((0, 0), (1, 2), (2, 0), (7, 11)):
        colour = [to_rgb(name) for name in IGNORED] if label[row, column] == 255 else []
        colour += [to_rgb(COLOURS[label[row, column]])] if label[row, column] != 255 else []
        assert any(np.allclose(shown[1][row, column], one) for one in colour)
        assert np.allclose(shown[2][row, column], to_rgb(COLOURS[arrays["prediction_3"][row, column]]))
    assert np.array_equal(shown[2], shown[3])
    assert texts(drawing.figure) == [*NAMES, "does not count"]


def test_classes_of_images_are_written_and_wrong_ones_marked(new_ledger: Begin) -> None:
    writer = new_ledger()
    sources = write_study(writer)
    write_probe(writer.study, ["cross_entropy-0", "sar-0"], task="classification")
    (drawing,) = qualitative(sources)
    words = [[(text.get_text(), text.get_color()) for text in panel.texts] for panel in drawing.figure.axes]
    assert words[:4] == [[], [(NAMES[3], "black")], [(NAMES[3], RIGHT)], [(NAMES[3], RIGHT)]]
    assert words[4:7] == [[], [(NAMES[4], "black")], [(f"x {NAMES[0]}", WRONG)]]


def test_arms_that_saw_other_images_are_left_out(new_ledger: Begin) -> None:
    writer = new_ledger()
    sources = write_study(writer)
    write_probe(writer.study, ["cross_entropy-0"])
    write_probe(writer.study, ["sar-0"], file="images-1.npz")
    (drawing,) = qualitative(sources)
    assert drawing.alt.endswith("the arms cross_entropy.")
    (writer.study / "probe" / "images-0.npz").unlink()
    assert qualitative(sources) == []


def test_equal_figures_give_equal_bytes(new_ledger: Begin, tmp_path: Path) -> None:
    writer = new_ledger()
    sources = write_study(writer, seeds=1)
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written.append([path.read_bytes() for path in save(embedding(sources)[0], tmp_path / name)[:2]])
    assert written[0] == written[1]
