"""Cells, columns and pictures as the page shows them."""

import base64
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from analysis.figures.drawing import Drawing, as_png
from analysis.html_views import LARGEST_SVG, FigureView, figure_view, sort_value, table_view
from analysis.table import Table


def test_a_very_large_drawing_is_shown_as_png(tmp_path: Path) -> None:
    head = b'<?xml version="1.0"?><svg xmlns="x" height="72pt" viewBox="0 0 1 1" width="144.4pt">'
    drawing = Drawing("points", "Points", "Many points.", Figure(), "All of them.")
    for size, kind, data in ((LARGEST_SVG, "svg+xml", None), (LARGEST_SVG + 1, "png", as_png(drawing))):
        svg = head.ljust(size)
        (tmp_path / "points.svg").write_bytes(svg)
        view = figure_view(drawing, tmp_path, 1)
        shown = base64.b64encode(data or svg).decode()
        assert view == FigureView(
            1, "Points", "Many points.", "All of them.", f"data:image/{kind};base64,{shown}", "193", "96"
        )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".256 [.250, .262]", "0.256"),
        ("0.256 [0.25, 0.26]", "0.256"),
        ("+.012 [-.001, +.025]", "0.012"),
        ("-.012", "-0.012"),
        ("<.001", "0.001"),
        (".108 [.069, .120] *", "0.108"),
        (".310 (+.012)", "0.31"),
        ("7 of 8, 1 diverged", "7.0"),
        ("3200", "3200.0"),
        ("12.5 %", "12.5"),
        ("1.5e-09", "1.5e-09"),
        ("inf", "Infinity"),
        ("-inf", "-Infinity"),
        ("-", ""),
        ("", ""),
        ("3.11.9", ""),
        ("2023-11-14 22:13:20", ""),
        ("16 CPUs (x), 2 x y", ""),
        ("10_arm", ""),
        ("infinite", ""),
    ],
)
def test_what_cells_sort_by(text: str, value: str) -> None:
    assert sort_value(text) == value


def test_columns_are_numeric_where_every_cell_is_a_number_or_missing() -> None:
    rows = [["a", "1", "1", ".5 [.4, .6]"], ["b", "-", "x", "better"], ["c", "+.5", "2", ""]]
    view = table_view(Table("t", ["arm", "all", "some", "verdict"], rows, frozenset({(0, 1)})), 3)
    assert [column.numeric for column in view.columns] == [False, True, False, False]
    assert [row[1].value for row in view.rows] == ["1.0", "", "0.5"]
    assert [row[1].bold for row in view.rows] == [True, False, False]
    assert [(row[3].css, row[3].sign) for row in view.rows][1] == ("mark good", "\u25b2")
