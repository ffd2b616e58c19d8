"""Protocol 4: seed k means the same data, order and initial model weights in every arm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sarx.config.compose import override
from sarx.config.schema import as_dict, build
from sarx.data import class_counts, describe, load_split
from sarx.study.design import make_arms
from sarx.study.load import load_study
from sarx.training.samples import Samples
from sarx.training.seeding import batch_indices
from sarx.training.step import build_module

ABLATION = Path("search_spaces/ablation.yaml")


@pytest.mark.parametrize("level", ["model=fcn_test_efficientnet", "model=fcn_test_convnext"])
def test_weights_at_step_0_and_the_first_100_batches_are_equal_in_all_arms(level):
    study, source = load_study(ABLATION)
    arms = [arm for arm in make_arms(study, source) if arm.level == level]
    assert len(arms) == 8
    reference = None
    for arm in arms:
        config = build(override(as_dict(arm.config), {"seed": 12345, "role": "confirm"}))
        data = describe(config.data, config.seed)
        split = load_split(config.data, config.seed, "train")
        counts = torch.from_numpy(class_counts(split.labels, data.num_classes, data.ignore_index))
        weights = build_module(config, data, counts).model.state_dict()
        samples = Samples(split, data, config, torch.device("cpu"))
        batches = [samples.batch(step) for step in (0, 1, 99)]
        order = torch.stack([batch_indices(config.seed, len(split), 16, step) for step in range(100)])
        if reference is None:
            reference = (weights, batches, order, data.groups)
            continue
        assert weights.keys() == reference[0].keys()
        assert all(torch.equal(weights[key], reference[0][key]) for key in weights)
        assert all(
            torch.equal(a, b)
            for x, y in zip(batches, reference[1], strict=True)
            for a, b in zip(x, y, strict=True)
        )
        assert torch.equal(order, reference[2])
        assert data.groups == reference[3]


def test_a_pass_takes_every_sample_once_and_passes_differ():
    count, size = 10, 4
    stream = torch.cat([batch_indices(7, count, size, step) for step in range(5)])
    assert sorted(stream[:10].tolist()) == list(range(10))
    assert sorted(stream[10:].tolist()) == list(range(10))
    assert stream[:10].tolist() != stream[10:].tolist()


def test_a_batch_may_be_larger_than_the_data():
    assert sorted(batch_indices(7, 3, 6, 2).tolist()) == [0, 0, 1, 1, 2, 2]


def test_order_depends_on_the_seed_alone():
    once = batch_indices(3, 50, 8, 4)
    batch_indices(4, 50, 8, 0)
    torch.rand(5)
    assert torch.equal(once, batch_indices(3, 50, 8, 4))
    assert not torch.equal(once, batch_indices(4, 50, 8, 4))
