"""A study file to damage, and its loading as the command does it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sarx.models.backbone_names import backbone_names
from sarx.study.design import Arm, check_backbones, make_arms
from sarx.study.load import load_study
from sarx.study.schema import Study

TEXT = """\
# Does it help?   just a test
study: small
base: [data=digit_scenes, training=quick]
objective: {metric: val/miou, mode: max}
report: {primary: test/miou, smallest_effect: 0.005}
ablation:
  factors: {model: [fcn_test_efficientnet, fcn_test_resnet]}
  reference: sar
  arms:
    sar: {}
    plain: {regularizer: none}
    no_pull:
      regularizer.pull_weight: 0.0
search:
  parameters:
    optim.lr: {low: 0.001, high: 0.1, log: true}
    regularizer.anchor_dim: {choices: [32, feature_dim]}
  trials_per_arm: 8
  batch: 4
  sampler: qmc
confirm: {seeds: 3}
"""

Loader = Callable[..., tuple[Study, list[Arm]]]


@pytest.fixture
def text() -> str:
    """Return a correct study of 21 lines."""
    return TEXT


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Return a function that loads the text (or bytes) of a study, called s.yaml, with its arms."""
    monkeypatch.chdir(tmp_path)

    def load_text(raw: str | bytes, settings: Sequence[str] = ()) -> tuple[Study, list[Arm]]:
        Path("s.yaml").write_bytes(raw.encode() if isinstance(raw, str) else raw)
        study, source = load_study(Path("s.yaml"), settings)
        arms = make_arms(study, source)
        check_backbones(arms, source, backbone_names())
        return study, arms

    return load_text
