"""The table of models: what it counts, and that the README shows what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from model_files import FILES, config_of
from torch import nn

from sarx.config.errors import UserError
from sarx.models import build_model
from sarx.models.table import HEADER, gflops, line, main, row, sar_parameters
from sarx.regularizers import SemanticAnchorRegularizer

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [2, 64, 720])
def test_parameters_of_sar_are_counted_as_they_are(width: int) -> None:
    regularizer = SemanticAnchorRegularizer(5, width)
    assert sum(value.numel() for value in regularizer.parameters()) == sar_parameters(width)


def test_a_multiply_add_counts_twice() -> None:
    layers = nn.Conv2d(3, 7, 3, padding=1, device="meta")
    assert gflops(layers, (10, 20)) == 2 * 3 * 7 * 9 * 200 / 1e9


def test_parameters_are_those_of_the_model() -> None:
    model = build_model(config_of("fcn_test_resnet"), in_channels=3, num_classes=19)
    cells = row("fcn_test_resnet").strip("| ").split(" | ")
    assert cells[0] == "fcn_test_resnet"
    assert float(cells[1]) == round(sum(value.numel() for value in model.parameters()) / 1e6, 2)
    assert cells[2] == f"{3 * 64**2 + 8 * 64:,}"
    assert cells[5:] == ["64", "4"]


def test_classification_has_neither_stride_nor_crop() -> None:
    assert row("pool_resnet32").strip("| ").split(" | ")[3:] == ["-", "-", "64", "-"]


def rows_of_the_readme() -> dict[str, str]:
    (text,) = re.findall(r"<!-- models -->\n(.*?)\n<!-- /models -->", README, re.S)
    lines = text.splitlines()
    assert lines[:2] == [line(HEADER), line(["---"] * len(HEADER))]
    return {cells.split(" | ")[0].strip("| "): cells for cells in lines[2:]}


def test_the_readme_shows_every_model() -> None:
    assert list(rows_of_the_readme()) == sorted(path.stem for path in FILES)


def test_the_readme_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of_the_readme()
    smallest = sorted(rows, key=lambda name: float(rows[name].split(" | ")[1]))[:2]
    assert main(smallest) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [rows[name] for name in smallest]


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'fcn_hrnet_w48'"):
        main(["fcn_hrnet_w47"])


def test_nothing_is_drawn() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    row("fcn_test_convnext")
    assert torch.equal(torch.get_rng_state(), before)
