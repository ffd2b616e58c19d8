"""A text with part of a report in it, made again from the ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis import excerpt

Begin = Callable[..., Any]
TEXT = """\
# Mine

<!-- sarx {study}: arm, test/miou, verdict -->
old
<!-- sarx end -->

![differences](figures/{study}-forest.svg) and ![seeds](figures/{study}-seeds.png)

<!-- sarx {study} table: Cost -->
<!-- sarx end -->

The end.
"""


@pytest.fixture
def written(new_ledger: Begin, whole_study: Any, tmp_path: Path) -> Callable[[str], tuple[int, Path, str]]:
    """Return a function that brings a text up to date: exit code, file, name of the study."""
    writer = new_ledger()
    whole_study(writer)
    study = writer.study.name

    def run(text: str) -> tuple[int, Path, str]:
        file = tmp_path / "text" / "mine.md"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text.replace("{study}", study))
        code = excerpt.main([study, str(file), "--storage", str(writer.study.parent)])
        return code, file, study

    return run


def test_tables_and_figures_are_put_into_a_text(written: Any) -> None:
    code, file, study = written(TEXT)
    text = file.read_text()
    assert code == 0
    assert "old" not in text
    assert text.startswith(
        f"# Mine\n\n<!-- sarx {study}: arm, test/miou, verdict -->\n\n**model=small**\n\n| arm "
    )
    assert text.endswith("The end.\n")
    assert "reference" in text
    assert "confirm trials" in text[text.index("table: Cost") :]
    assert "difference " not in text
    figures = file.parent / "figures"
    assert sorted(path.name for path in figures.iterdir()) == [f"{study}-forest.svg", f"{study}-seeds.png"]
    assert (figures / f"{study}-forest.svg").read_text().startswith("<?xml")
    assert (figures / f"{study}-seeds.png").read_bytes().startswith(b"\x89PNG")
    assert excerpt.main([study, str(file), "--storage", str(file.parents[1])]) in (0, 2)
    assert written(text)[1].read_text() == text  # a second time nothing changes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# Nothing\n", "no place for"),
        ("<!-- sarx {study}: arm -->\n", "has no '<!-- sarx end -->'"),
        (
            "<!-- sarx {study}: arm -->\n<!-- sarx {study}: arm -->\n<!-- sarx end -->\n",
            "has no '<!-- sarx end",
        ),
        ("<!-- sarx {study} table: Mine -->\n<!-- sarx end -->\n", "no table 'Mine'; there is: "),
        ("<!-- sarx {study}: arm, mine -->\n<!-- sarx end -->\n", "no column 'mine'; it has arm, test/miou"),
        ("<!-- sarx {study}: arm -->\n<!-- sarx end -->\n![a](x/{study}-map.svg)", "no figure 'map'"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    written: Any, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    code, file, study = written(text)
    assert code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert file.read_text() == text.replace("{study}", study)


def test_line_ends_stay_and_pictures_elsewhere_are_left_alone(written: Any) -> None:
    text = (
        TEXT.replace("\n", "\r\n")
        + "![x](https://example.org/{study}-map.svg) <!-- sarx {study}-two: arm -->\r\n"
    )
    code, file, study = written(text.replace("The end.", "![y]({study}-two-map.svg)"))
    assert code == 0
    raw = file.read_bytes()
    assert raw.count(b"\n") == raw.count(b"\r\n") > 20
    assert sorted(path.name for path in file.parent.rglob("*.svg")) == [f"{study}-forest.svg"]


def test_a_text_that_is_not_utf_8_is_refused(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, file, study = written(TEXT)
    file.write_bytes(b"\xff\xfe")
    capsys.readouterr()
    assert excerpt.main([study, str(file), "--storage", str(Path(file).parents[1])]) == 2
