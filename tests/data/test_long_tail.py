"""Who is rare depends on the seed; how rare follows the law."""

import numpy as np
import pytest

from sarx.data.digits import BOUNDS, SHA256, load_digits, sha256
from sarx.data.long_tail import class_ranks, draw_digits, rank_frequencies, rank_groups, stream


def test_digits_are_split_by_position():
    from sklearn.datasets import load_digits as all_digits

    bunch = all_digits()
    parts = [load_digits(split) for split in ("train", "val", "test")]
    assert [len(part.labels) for part in parts] == [1100, 350, 347]
    assert [*BOUNDS.values()] == [(0, 1100), (1100, 1450), (1450, 1797)]
    glyphs = np.concatenate([part.glyphs for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    np.testing.assert_array_equal(glyphs, bunch.images)
    np.testing.assert_array_equal(labels, bunch.target)
    assert sha256(glyphs, labels) == SHA256


def test_ranks_are_a_permutation_of_the_seed_alone():
    ranks = [class_ranks(seed) for seed in range(200)]
    assert all(sorted(r) == list(range(10)) for r in ranks)
    np.testing.assert_array_equal(class_ranks(7), ranks[7])
    assert len({tuple(r) for r in ranks}) == 200
    mean_rank = np.mean(ranks, axis=0)  # SD of a mean of 200 uniform ranks: 0.2
    assert np.all(np.abs(mean_rank - 4.5) < 0.9)


def test_streams_are_independent_and_repeatable():
    assert stream(3, "a").random() == stream(3, "a").random()
    assert len({stream(3, "a").random(), stream(3, "b").random(), stream(4, "a").random()}) == 3
    stream(2**63 - 1, "a").random()


def test_groups_partition_the_classes_by_rank():
    ranks = class_ranks(3)
    groups = rank_groups(ranks, offset=1)
    assert [len(group) for group in groups.values()] == [3, 4, 3]
    assert [ranks[c - 1] for group in groups.values() for c in group] == list(range(10))


@pytest.mark.parametrize("imbalance", [1.0, 20.0, 100.0])
def test_class_frequencies_follow_the_law(imbalance):
    digits, ranks, total = load_digits("train"), class_ranks(5), 7000
    chosen = draw_digits(stream(5, "x"), digits, ranks, imbalance, total)
    counts = np.bincount(digits.labels[chosen], minlength=10)
    law = imbalance ** (-ranks / 9)
    assert np.all(np.abs(counts - total * law / law.sum()) <= 1)
    shares = rank_frequencies(imbalance)
    assert shares[0] / shares[-1] == pytest.approx(imbalance)


def test_imbalance_changes_as_little_as_possible():
    digits, ranks = load_digits("train"), class_ranks(5)
    mild = draw_digits(stream(5, "x"), digits, ranks, 20.0, 7000)
    wild = draw_digits(stream(5, "x"), digits, ranks, 25.0, 7000)
    same = digits.labels[mild] == digits.labels[wild]
    np.testing.assert_array_equal(mild[same], wild[same])
    assert same.mean() > 0.8
