"""Whatever a name holds, every writer prints it as it is: no markup, no command, no formula."""

import csv
import io
import re
import unicodedata
from collections.abc import Callable

import polars as pl
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from analysis.csv_file import without_formulas
from analysis.latex import _parts, _tabular
from analysis.latex_text import latex
from analysis.markdown import _list, table_text
from analysis.table import Table
from analysis.terminal import print_table
from tests.analysis.nasty import NASTY

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def markdown_cells(table: Table) -> list[list[str]]:
    """Return what a Markdown reader shows of a table; anything but text in it fails."""
    lines: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table_text(table)):
        if token.type == "tr_open":
            lines.append([])
        elif token.type == "inline":
            children = token.children or []
            assert {child.type for child in children} <= {"text", "text_special"}, token.content
            lines[-1].append("".join(child.content for child in children))
    return lines


def csv_cells(table: Table) -> list[list[str]]:
    """Return what a spreadsheet shows: the quote before a text is its own mark for text."""
    rows = {name: [row[n] for row in table.rows] for n, name in enumerate(table.columns)}
    read = list(csv.reader(io.StringIO(without_formulas(pl.DataFrame(rows)).write_csv())))
    assert not any(cell.startswith(FORMULA) for row in read for cell in row)
    return [
        [cell[1:] if cell.startswith("'") and cell[1:2] in FORMULA else cell for cell in row] for row in read
    ]


COMMANDS = {
    "textbackslash": "\\",
    "textasciicircum": "^",
    "textasciitilde": "~",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "char34": '"',
    "ss": "\u00df",
    "o": "\u00f8",
    "L": "\u0141",
}
ACCENTS = {"`": "\u0300", "'": "\u0301", "~": "\u0303", "c": "\u0327", '"': "\u0308", "H": "\u030b"}
MATHS = {
    "-": "\u2212",
    r"\pm": "\u00b1",
    r"\times": "\u00d7",
    r"\leq": "\u2264",
    r"\alpha": "\u03b1",
    r"\mu": "\u00b5",
    r"\mu{}": "\u03bc",
}
TOKEN = re.compile(
    r"\\(?P<word>[A-Za-z]+\d*)\{\}"
    r"|\\texttt\{U\+(?P<point>[0-9A-F]{4,6})\}"
    r"|\\(?P<accent>[`'~cH\"])\{(?P<letter>[A-Za-z]?)\}"
    r"|\\(?P<sign>[{}$&#%_])"
    r"|\$(?P<maths>[^$]+)\$"
    r"|\{(?P<guarded>[\[\]*])\}"
    r"|(?P<apart>\{\})"
    r"|(?P<plain>[A-Za-z0-9 .,:;!?/()=+@'-])"
)


def read_latex(text: str) -> str:
    """Return what LaTeX prints, by a reader that knows nothing but plain characters and harmless commands."""
    place, shown = 0, ""
    while place < len(text):
        token = TOKEN.match(text, place)
        assert token is not None, text[place:]
        found = {name: value for name, value in token.groupdict().items() if value is not None}
        if "word" in found:
            shown += COMMANDS[found["word"]]
        elif "point" in found:
            shown += chr(int(found["point"], 16))
        elif "accent" in found:
            composed = unicodedata.normalize("NFC", found["letter"] + ACCENTS[found["accent"]])
            shown += composed if found["letter"] else "`"
        elif "maths" in found:
            shown += MATHS[found["maths"]]
        else:
            shown += found.get("sign") or found.get("guarded") or found.get("plain") or ""
        place = token.end()
    assert not re.search(r"--|''|,,|``", text)  # would become one character
    return shown


def latex_cells(table: Table) -> list[list[str]]:
    """Return what LaTeX prints of a table."""
    (part,) = _parts(table)
    lines = _tabular(table, part).split("\n")
    rows = [line for line in lines if line.endswith(r" \\")]
    return [[read_latex(cell) for cell in re.split(r"(?<!\\) & ", row[:-3])] for row in rows]


WRITERS: dict[str, Callable[[Table], list[list[str]]]] = {
    "markdown": markdown_cells,
    "csv": csv_cells,
    "latex": latex_cells,
}


def minus(text: str) -> str:
    """Return text as LaTeX shows it: a hyphen before a number is a minus sign."""
    return re.sub(r"^-(?=\d)", "\u2212", text)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("text", NASTY)
def test_what_is_shown_is_what_was_written(writer: str, text: str) -> None:
    table = Table("", [text, "value"], [[text, "1"], ["a", text]])
    shown = WRITERS[writer](table)
    expected = minus(text) if writer == "latex" else text
    assert shown == [[expected, "value"], [expected, "1"], ["a", expected]]


@pytest.mark.parametrize("text", NASTY)
def test_sentences_are_shown_as_they_were_written(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(_list([text, "second"]))
    assert [token.type for token in tokens].count("list_item_open") == 2
    assert not {token.type for token in tokens} & {"heading_open", "html_block", "ordered_list_open", "fence"}
    first = next(token for token in tokens if token.type == "inline")
    assert "".join(child.content for child in first.children or []) == text
    assert read_latex(latex(text)) == minus(text)
    assert read_latex(latex(text, breakable=True).replace(r"\allowbreak{}", "")) == minus(text)


def test_the_terminal_takes_no_name_for_its_own_markup() -> None:
    stream = io.StringIO()
    table = Table("[bold]x[/bold]", ["[red]a[/red]", "b"], [["[link=https://x.y]z[/link]", ":smile:"]])
    print_table(table, Console(file=stream, width=120))
    for text in ("[bold]x[/bold]", "[red]a[/red]", "[link=https://x.y]z[/link]", ":smile:"):
        assert text in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-.012 [-.020, -.004]", "$-$.012 {[}$-$.020, $-$.004{]}"),
        ("+.019", "+.019"),
        ("inside +-.005.", r"inside $\pm$.005."),
        ("1e-05", "1e$-$05"),
        ("arm-1 of resnet-50, 3-5", "arm-1 of resnet-50, 3-5"),
        ("a - b -- c", "a - b -{}- c"),
        ("p <= .05", r"p \textless{}= .05"),
        ("two\nlines\t here", "two lines here"),
    ],
)
def test_signs(text: str, expected: str) -> None:
    assert latex(text) == expected


def test_headings_of_csv_files_are_no_formulas_either() -> None:
    frame = pl.DataFrame({"=HYPERLINK(1)": [1.0], " -x": ["a"], "\uff1d1": ["\uff0b1"], "test/miou": [" =1"]})
    lines = without_formulas(frame).write_csv().splitlines()
    assert lines == ["'=HYPERLINK(1),' -x,'\uff1d1,test/miou", "1.0,a,'\uff0b1,' =1"]
