"""A data set of a plug-in: chosen, planned, described and read like any other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sarx.config import compose as composing
from sarx.config import plugins
from sarx.config.errors import UserError
from sarx.config.schema import GROUPS
from sarx.data import DATASETS, class_counts, describe, fingerprint, label_counts, load_split
from sarx.study.identity import changed_files, training_code

PLUGIN = '''
"""Stripes: a segmentation data set of two classes, made in memory."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sarx.config.schema import GROUPS
from sarx.config.schema.options import check_fields, option
from sarx.data import DATASETS, DataSet, Split


@dataclass(kw_only=True, slots=True)
class StripesConfig:
    task: ClassVar[str] = "segmentation"
    num_classes: ClassVar[int] = 2
    name: str = "stripes"
    width: int = option(4, low=1, high=8)
    selection: str = option("val", choices=("val", "report"))

    def __post_init__(self):
        check_fields(self, "data")


class Stripes:
    def describe(self, config, seed):
        return DataSet(
            "stripes", "segmentation", 2, ("dark", "light"), 3, (16, 16), (0.5,) * 3, (0.5,) * 3, (0, 1),
            {"head": (0,), "tail": (1,)}, self.fingerprint(config),
        )

    def fingerprint(self, config):
        return f"stripes:{config.width}"

    def load_split(self, config, seed, split):
        labels = np.broadcast_to(np.arange(16) // config.width % 2, (5, 16, 16)).astype(np.uint8)
        return Split(np.repeat(labels[:, None] * np.uint8(200), 3, 1), labels)


GROUPS["data"]["stripes"] = StripesConfig
DATASETS["stripes"] = Stripes()
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the plug-in as a package with an entry point; undone afterwards."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(plugins, "_loaded", [])
    (tmp_path / "my_stripes.py").write_text(PLUGIN)
    info = tmp_path / "my_stripes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-stripes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sarx.plugins]\nstripes = my_stripes\n")
    importlib.invalidate_caches()
    yield tmp_path
    GROUPS["data"].pop("stripes", None)
    DATASETS.pop("stripes", None)
    sys.modules.pop("my_stripes", None)
    composing._defaults.cache_clear()


def test_it_is_chosen_described_and_read(installed: Path) -> None:
    with pytest.raises(UserError, match="there is no data called 'stripes'"):
        composing.compose(["data=stripes"])
    code = training_code()
    plugins.load(["stripes"])
    config = composing.compose(["data=stripes", "data.width=2"])
    assert changed_files(code.files, training_code().files) == ["plugin/my_stripes"]
    assert describe(config.data, 0).num_classes == config.data.num_classes == 2
    assert fingerprint(config.data) == "stripes:2"
    part = load_split(config.data, 0, "train")
    assert part.images.shape == (5, 3, 16, 16)
    np.testing.assert_array_equal(label_counts(config.data, 0, "train"), class_counts(part.labels, 2))
    with pytest.raises(UserError, match=r"data\.width: 9 is outside the allowed range \[1, 8\]"):
        composing.compose(["data=stripes", "data.width=9"])


def test_a_model_trains_on_it(installed: Path) -> None:
    from sarx.training.loop import train

    plugins.load(["my_stripes"])
    config = composing.compose(
        [
            "data=stripes",
            "regularizer=none",
            "training.steps=2",
            "training.eval_every=2",
            "training.batch_size=2",
        ]
    )
    (result,) = train(config)
    assert "val/miou" in result.metrics


def test_it_may_not_replace_a_data_set(installed: Path) -> None:
    (installed / "my_stripes.py").write_text(PLUGIN.replace('["data"]["stripes"]', '["data"]["cityscapes"]'))
    before = GROUPS["data"]["cityscapes"]
    try:
        with pytest.raises(UserError, match="my_stripes replaces data=cityscapes"):
            plugins.load(["my_stripes"])
    finally:
        GROUPS["data"]["cityscapes"] = before
