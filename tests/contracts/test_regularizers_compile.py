"""torch.compile takes every regularizer as one graph, which computes what eager mode computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from regularizer_cases import CASES, Parts, assert_same, batch, descend, fresh, snapshot, task_loss, trained
from torch import Tensor, nn


class Total(nn.Module):
    """Task loss plus regularizer, as a training step computes them."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        output = self.parts(features, labels)
        return task_loss(self.parts, features, labels) + output.loss, output.metrics


@pytest.fixture(autouse=True)
def _no_compiled_code_from_other_tests() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "case",
    [case if case.endswith("defaults") else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
def test_one_graph_equals_eager(case: str) -> None:
    """Two steps from the start, two in the middle of training; nothing is compiled anew after the first."""
    eager, compiled = Total(fresh(case).double()), Total(fresh(case).double())
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for seed in range(4):
        if seed == 2:
            for module in (eager, compiled):
                module.parts.load_state_dict(trained(case).state_dict())
        features, labels = batch(seed, dtype=torch.float64)
        wanted, metrics = eager(features, labels)
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            total, found = run(features, labels)
        assert_same({"total": total, **found}, {"total": wanted, **metrics}, 1e-12)
        descend(wanted, eager)
        descend(total, compiled)
        assert_same(snapshot(compiled), snapshot(eager), 1e-12)
