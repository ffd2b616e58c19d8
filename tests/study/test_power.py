"""The smallest detectable difference, against the protocol's figures and a simulation."""

import numpy as np
import pytest
from scipy import stats

from sarx.study.power import describe_power, detectable_effect


@pytest.mark.parametrize(("seeds", "effect"), [(5, 2.6), (8, 1.6), (10, 1.3)])
def test_the_figures_of_the_protocol(seeds, effect):
    assert detectable_effect(seeds, 5) == pytest.approx(effect, abs=0.06)


def test_more_seeds_and_fewer_rows_see_more():
    effects = [detectable_effect(seeds, 5) for seeds in (2, 3, 5, 10, 50)]
    assert effects == sorted(effects, reverse=True)
    assert detectable_effect(8, 1) < detectable_effect(8, 5) < detectable_effect(8, 15)
    assert detectable_effect(8, 5, power=0.5) < detectable_effect(8, 5)


@pytest.mark.parametrize("seeds", range(2, 40))
def test_every_size_has_an_answer(seeds):
    assert all(0 < detectable_effect(seeds, rows) < 1e4 for rows in (1, 2, 5, 15, 100))


def test_against_a_simulation():
    """One real effect among five rows: paired t test at level .05 / 5, 4000 studies of 8 seeds."""
    rng = np.random.default_rng(0)
    differences = rng.normal(detectable_effect(8, 5), 1.0, size=(4000, 8))
    found = stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05 / 5
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_words():
    said = describe_power(8, 5, "test/miou")
    assert "8 seeds and 5 rows" in said
    assert "test/miou of 1.6 SD" in said
    assert "nothing is tested" in describe_power(1, 5, "test/miou")
    assert "nothing is tested" in describe_power(8, 0, "test/miou")
