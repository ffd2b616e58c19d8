"""Consistency over seeds: agreements by hand, their invariances, the jackknife, the files."""

import math
from pathlib import Path

import numpy as np
import pytest

from analysis.consistency import (
    feature_pairs,
    jackknife,
    layout_agreement,
    layout_pairs,
    linear_cka,
    off_diagonal_cosines,
    over_pairs,
    read_geometry,
)
from analysis.errors import UserError
from analysis.statistics import Array
from sarx.study.storage import StudyFolder

NAN = float("nan")


def rotation(dim: int, seed: int = 1) -> Array:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def vectors(seed: int = 0, classes: int = 6, dim: int = 4) -> Array:
    return np.random.default_rng(seed).normal(size=(classes, dim))


def pairs_of(upper: list[float], seeds: int) -> Array:
    pairs = np.full((seeds, seeds), NAN)
    pairs[np.triu_indices(seeds, 1)] = upper
    return np.where(np.isnan(pairs), pairs.T, pairs)


def test_cosines_by_hand() -> None:
    found = off_diagonal_cosines(np.array([[2.0, 0.0], [0.0, 1.0], [-3.0, 3.0]]))
    assert found == pytest.approx([0, -math.sqrt(0.5), math.sqrt(0.5)])


def test_a_class_without_a_vector_has_no_cosine() -> None:
    found = off_diagonal_cosines(np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [NAN, 1.0]]))
    assert np.isnan(found).tolist() == [True, False, True, True, True, True]
    assert found[1] == pytest.approx(1)


def test_layouts_agree_whatever_basis_and_scale_they_are_in() -> None:
    first = vectors()
    turned = np.pad(first, ((0, 0), (0, 3))) @ rotation(7) * 5
    assert layout_agreement(first, turned) == pytest.approx(1)
    assert layout_agreement(first, vectors(1)) < 0.9
    assert layout_agreement(first, vectors(1)) == pytest.approx(
        np.corrcoef(off_diagonal_cosines(first), off_diagonal_cosines(vectors(1)))[0, 1]
    )
    assert layout_agreement(first, first[::-1]) != pytest.approx(1)  # classes matter


def test_layouts_are_compared_on_the_classes_that_both_have() -> None:
    first, second = vectors(), vectors(1)
    expected = layout_agreement(first[1:], second[1:])
    first[0] = NAN
    assert layout_agreement(first, second) == pytest.approx(expected)
    second[1:4] = 0
    assert math.isnan(layout_agreement(first, second))  # two classes are left: one pair


def test_layouts_that_cannot_be_compared() -> None:
    assert math.isnan(layout_agreement(np.eye(4), vectors(classes=4)))  # all cosines are 0
    assert math.isnan(layout_agreement(vectors(), vectors(classes=5)))


def test_cka_of_a_rotated_scaled_shifted_copy_is_1() -> None:
    features = np.random.default_rng(0).normal(size=(50, 4))
    assert linear_cka(features, features @ rotation(4) * 3 + 7) == pytest.approx(1)
    assert linear_cka(features, features * [1, 1, 1, 20]) < 0.9


def test_cka_equals_its_kernel_form() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 7))
    y[:, :2] += x[:, :2]
    centre = np.eye(30) - 1 / 30
    k, m = (centre @ (z @ z.T) @ centre for z in (x, y))
    assert linear_cka(x, y) == pytest.approx((k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum()))


def test_cka_of_features_that_say_nothing_is_unknown() -> None:
    features = np.random.default_rng(0).normal(size=(9, 2))
    for bad in (np.full((9, 2), 0.1), np.full((9, 2), np.inf)):
        assert math.isnan(linear_cka(features, bad))


def test_features_of_different_pixels_are_not_compared() -> None:
    rng = np.random.default_rng(0)
    one = {"pixels": np.arange(9), "labels": np.zeros(9), "features": rng.normal(size=(9, 2))}
    other = one | {"features": rng.normal(size=(9, 3))}
    pairs = feature_pairs([one, other, one | {"pixels": np.arange(9) + 1}, None])
    assert pairs[0, 1] == pytest.approx(linear_cka(one["features"], other["features"]))
    assert np.isfinite(pairs).sum() == 2


def test_pairs_are_symmetric_and_missing_seeds_stay_missing() -> None:
    trials = [{"class_means": vectors(seed)} for seed in range(3)]
    pairs = layout_pairs([trials[0], None, *trials[1:], {"other": vectors()}], "class_means")
    assert pairs.shape == (5, 5)
    assert np.array_equal(pairs, pairs.T, equal_nan=True)
    assert np.isfinite(pairs).sum() == 6
    assert pairs[3, 0] == pytest.approx(layout_agreement(vectors(0), vectors(2)))
    assert over_pairs([1.0, 4.0], lambda a, b: a + b).tolist()[1][0] == 5


def test_the_jackknife_by_hand() -> None:
    found = jackknife(pairs_of([0.1, 0.2, 0.6], 3))
    # Without seed 0: .6, without 1: .2, without 2: .1; their mean is .3.
    error = math.sqrt(2 / 3 * (0.3**2 + 0.1**2 + 0.2**2))
    assert found.value == pytest.approx(0.3)
    assert found.error == pytest.approx(error)
    assert found.low == pytest.approx(0.3 - 4.302653 * error)
    assert found.high == pytest.approx(0.3 + 4.302653 * error)
    assert found.seeds == 3


def test_the_jackknife_over_pairs_is_the_plain_one_where_seeds_add_up() -> None:
    x = np.array([0.2, 0.5, 0.1, 0.9, 0.4])
    found = jackknife(pairs_of([x[i] + x[j] for i in range(5) for j in range(i + 1, 5)], 5))
    assert found.value == pytest.approx(2 * x.mean())
    assert found.error == pytest.approx(2 * x.std(ddof=1) / math.sqrt(5))


def test_a_missing_seed_changes_nothing_for_the_others() -> None:
    whole = pairs_of([0.1, 0.2, 0.6, 0.4, 0.3, 0.7], 4)
    wider = np.full((6, 6), NAN)
    wider[np.ix_([0, 2, 3, 5], [0, 2, 3, 5])] = whole
    assert jackknife(wider) == pytest.approx(jackknife(whole))


def test_too_few_seeds_have_no_interval() -> None:
    two = jackknife(pairs_of([0.25], 2))
    assert (two.value, two.seeds) == (0.25, 2)
    assert all(map(math.isnan, (two.error, two.low, two.high)))
    assert math.isnan(jackknife(np.full((4, 4), NAN)).value)
    spoke = pairs_of([0.1, 0.2, NAN], 3)  # without seed 0 nothing is left
    assert jackknife(spoke).value == pytest.approx(0.15)
    assert math.isnan(jackknife(spoke).low)


def test_a_paired_difference_is_free_of_what_seeds_share() -> None:
    reference = pairs_of([0.1, 0.2, 0.6, 0.4, 0.3, 0.7], 4)
    arm = reference + 0.05
    assert jackknife(arm).error > 0.05
    found = jackknife(arm - reference)
    assert found.value == pytest.approx(0.05)
    assert found.error == pytest.approx(0, abs=1e-12)
    arm[2], arm[:, 2] = NAN, NAN
    assert jackknife(arm - reference).seeds == 3


def test_files_are_found_where_trials_write_them(tmp_path: Path) -> None:
    for attempt, value in ((9, 1.0), (10, 2.0), (2, 3.0)):
        folder = StudyFolder(tmp_path).attempt("abc", attempt)
        folder.mkdir(parents=True)
        np.savez(folder / "geometry.npz", class_means=np.array([[value]]))
    StudyFolder(tmp_path).attempt("abc", 11).mkdir()
    found = read_geometry(tmp_path, "abc")
    assert found is not None
    assert found["class_means"].tolist() == [[2.0]]
    assert read_geometry(tmp_path, "ab") is None


@pytest.mark.parametrize("keep", [0, 40, 200])
def test_a_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    file = StudyFolder(tmp_path).attempt("abc", 1) / "geometry.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, class_means=np.zeros((5, 5)))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"attempt-1/geometry\.npz is damaged"):
        read_geometry(tmp_path, "abc")
