"""A regularizer is one new file and one line in the registry: those that CONTRIBUTING.md prints, verbatim."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import regularizer_cases
import test_regularizers as contract
import test_regularizers_compile as compiled
import test_regularizers_state as state
from regularizer_cases import fresh

import sarx.regularizers
from sarx.config import compose as composing
from sarx.config.errors import UserError
from sarx.config.schema import as_dict
from sarx.config.schema import regularizers as registry
from sarx.config.schema.data import DigitScenesConfig
from sarx.data import Split
from sarx.training import loop

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = TEXT.split("## A regularizer: one file and one line")[1].split("\n## ")[0]
FILE, LINE = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)

TINY = {
    "model": "fcn_test_efficientnet",
    "data.num_train": 16,
    "training.steps": 2,
    "training.eval_every": 1,
    "training.batch_size": 4,
}


@pytest.fixture(autouse=True)
def _shrink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "shrink.py").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr(sarx.regularizers, "__path__", [*sarx.regularizers.__path__, str(tmp_path)])
    entry = eval("{" + LINE + "}", dict(vars(registry)))  # what is in scope where the line goes
    assert list(entry) == ["shrink"]
    monkeypatch.setitem(registry.REGULARIZERS, "shrink", entry["shrink"])
    yield
    sys.modules.pop("sarx.regularizers.shrink", None)
    vars(sarx.regularizers).pop("shrink", None)
    composing._defaults.cache_clear()


def test_it_is_chosen_and_its_options_are_checked() -> None:
    config = composing.compose(["regularizer=shrink", "regularizer.pull_weight=0.5"])
    assert as_dict(config)["regularizer"] == {"name": "shrink", "pull_weight": 0.5}
    with pytest.raises(UserError, match=r"regularizer\.pull_weight: -1\.0 is outside"):
        composing.compose(["regularizer=shrink", "regularizer.pull_weight=-1"])
    with pytest.raises(UserError, match=r"unknown key|has no option"):
        composing.compose(["regularizer=shrink", "regularizer.ema_decay=0.5"])
    with pytest.raises(UserError, match="no regularizer called 'shink'"):
        composing.compose(["regularizer=shink"])


def test_it_trains_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loop.load_split

    def short(config: DigitScenesConfig, seed: int, split: str) -> Split:
        """The first scenes: this test is not about scores."""
        found = whole(config, seed, split)
        return Split(found.images[:16], found.labels[:16])

    monkeypatch.setattr(loop, "load_split", short)
    results = list(loop.train(composing.compose({**TINY, "regularizer": "shrink"})))
    assert [result.step for result in results] == [1, 2]
    assert all(result.metrics["train/pull_loss"] > 0 for result in results)
    assert not results[-1].diverged


def test_it_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an entry that stands in the registry from the start, it would be a case like all others."""
    monkeypatch.setitem(regularizer_cases.CASES, "shrink", registry.REGULARIZERS["shrink"]())
    contract.test_loss_and_gradients_are_finite("shrink", fresh, (2, 8, 3, 4), (2, 7, 5))
    contract.test_weight_0_is_the_task_loss_bit_for_bit("shrink", fresh)
    contract.test_ignored_pixels_do_not_matter("shrink", fresh, float("nan"))
    contract.test_no_valid_pixel("shrink", fresh, (0, 8))
    contract.test_a_label_out_of_range_is_named("shrink", fresh, 5)
    state.test_metrics_are_the_same_detached_scalars_on_every_step("shrink", fresh)
    state.test_eval_computes_and_changes_nothing("shrink", fresh)
    compiled.test_one_graph_equals_eager("shrink")
