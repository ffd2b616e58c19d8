"""LaTeX of the report: floats that fit, and a document that a plain TeX compiles."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.latex import CELL, PAGE, _floats, _pages, _parts, preview, to_latex
from analysis.report import make_report
from analysis.table import Table
from tests.analysis.nasty import NASTY
from tests.debian import needed

Begin = Callable[..., Any]
TROUBLE = "Warning|Overfull|Missing character|undefined|multiply defined"
TEX = "texlive-latex-base texlive-latex-recommended"


def test_every_table_is_a_float_with_its_own_label(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer)
    report = make_report(writer.study)
    text = to_latex(report)
    labels = re.findall(r"\\label\{([^}]*)\}", text)
    assert labels[:2] == ["tab:sar-ablation-model-small", "tab:sar-ablation-model-large"]
    assert len(set(labels)) == len(labels) == len(report.tables) + len(report.extras)
    assert all(re.fullmatch(r"tab:[a-z0-9-]+", label) for label in labels)
    assert text.count(r"\begin{\sarxfloat}") == text.count(r"\end{\sarxfloat}") == len(labels)
    assert text.count(r"\begin{tabular}") == text.count(r"\toprule") == text.count(r"\bottomrule")


def test_statements_stand_below_the_first_table_alone(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer, seeds_done=4)
    first, second, *_ = to_latex(make_report(writer.study)).split(r"\begin{\sarxfloat}")[1:]
    for statement in ("Winners chosen on val", "Conditional on the tuned", "Missing: Interim: 32 of 64"):
        assert statement in first
        assert statement not in second
    assert r"Statements as below Table~\ref{tab:sar-ablation-model-small}." in second


def test_what_the_tests_single_out_is_bold(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer)
    text = to_latex(make_report(writer.study))
    assert next(r"\textbf{better}" in line for line in text.split("\n") if line.startswith(r"no\_pull & "))
    assert r"\textbf{worse}" not in text


def test_long_and_wide_tables_are_cut_into_parts_that_cover_every_cell() -> None:
    table = Table("t", ["arm", *(f"column {n} " + "x" * 20 for n in range(9))], [["a" * 20] * 10] * 130)
    parts = _parts(table)
    seen = [(row, column) for part in parts for row in part.rows for column in part.columns[1:]]
    assert sorted(seen) == [(row, column) for row in range(130) for column in range(1, 10)]
    assert all(part.columns[0] == 0 for part in parts)
    pages = list(_pages(parts))
    assert [part for page in pages for part in page] == parts
    assert max(sum(part.lines for part in page) for page in pages) <= PAGE
    floats = _floats(table, "tab:t", "")
    assert len(floats) == len(pages)
    assert floats[1].count(r"\caption{t (part 2 of ") == 1


def test_long_cells_become_paragraphs_and_count_their_lines() -> None:
    table = Table("", ["arm", "parameters"], [["a", "x " * 3 * CELL], ["b", "y"]])
    (part,) = _parts(table)
    assert part.lines == 6 + 1 + 3
    assert r">{\raggedright\arraybackslash}p{18em}" in _floats(table, "l", "")[0]


def test_notes_that_do_not_fit_stand_below_the_float() -> None:
    table = Table("t", ["a"], [["b"]] * 30, notes=("word " * 600,))
    floats = _floats(table, "tab:t", "")
    assert len(floats) == 2
    assert "word" not in floats[0]
    assert floats[1].startswith(r"\noindent{\footnotesize Notes on Table~\ref{tab:t}. word word")


def nasty_study(writer: Any, metrics_of: Any) -> None:
    """Write a study in which everything that has a name is called something unfortunate."""
    cited = [{"name": name, "value": 0.5, "source": name * 3, "setting": name} for name in NASTY]
    arms = ("sar", *NASTY)
    report = {"primary": "test/miou", "smallest_effect": 0.02, "cited": cited}
    question = f"Why {' '.join(NASTY)}?"
    writer.open(study="nasty", arms=arms, levels=("m=a_b%",), seeds=2, report=report, question=question)
    for number, arm in enumerate(arms):
        writer.search(arm, "m=a_b%", tag=str(number))
        for seed in range(2):
            writer.claim(arm, "m=a_b%", seed, f"c-{number}-{seed}")
            classes = {f"test/iou/{name}": 0.1 * seed + 0.01 * number for name in NASTY}
            writer.finish(f"c-{number}-{seed}", metrics_of(0.3 + 0.01 * number + 0.1 * seed) | classes)


@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_a_plain_tex_compiles_the_preview(new_ledger: Begin, metrics_of: Any) -> None:
    pdflatex, pdftotext = needed(TEX, "pdflatex"), needed("poppler-utils", "pdftotext")
    if subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode:
        pytest.skip("booktabs is missing; it is in texlive-latex-recommended")
    writer = new_ledger()
    nasty_study(writer, metrics_of)
    folder = writer.study / "report"
    folder.mkdir()
    report = make_report(writer.study)
    for name, text in (("table.tex", to_latex(report)), ("preview.tex", preview(report))):
        (folder / name).write_text(text, encoding="utf-8")
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "preview.tex"]
    for _ in range(2):  # the second time references are known
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
    log = (folder / "preview.log").read_text(encoding="utf-8", errors="replace")
    found = [line for line in log.splitlines() if re.search(TROUBLE, line)]
    assert found == []
    text = shown(pdftotext, folder / "preview.pdf")
    for name in ("<script>alert(1)</script>", r"\input{x}", "=1+1", "$x$", "[a](https://x.y)", "%comment"):
        assert name in text
    assert len(re.findall(r"\+\.0\d0|\+\.1\d0", text)) > 0


def shown(pdftotext: str, file: Path) -> str:
    """Return the text of a PDF without blanks."""
    done = subprocess.run([pdftotext, "-layout", str(file), "-"], capture_output=True, text=True, check=True)
    return re.sub(r"\s", "", done.stdout)
