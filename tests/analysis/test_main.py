"""The command: which study, what it writes, and one message for a mistake."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main

Begin = Callable[..., Any]


def test_prints_and_writes_everything(
    new_ledger: Begin, whole_study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = new_ledger()
    whole_study(writer)
    assert main(["sar-ablation", "--storage", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    folder = writer.study / "report"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert [str(file.relative_to(folder)) for file in files] == [
        *(
            f"figures/{name}.{kind}"
            for name in ("forest", "search_history_model_large", "search_history_model_small", "seeds")
            for kind in ("pdf", "svg")
        ),
        "preview.tex",
        "report.html",
        "search.csv",
        "table.csv",
        "table.md",
        "table.tex",
        "trials.csv",
        "winners.csv",
    ]
    for file in files:
        assert str(file) in out
    assert "just tensorboard" in out
    assert out.splitlines()[-1].endswith(f"open it in a browser: {folder / 'report.html'}")
    assert "| no_pull " in out


def test_the_same_ledger_gives_the_same_files(new_ledger: Begin, whole_study: Any, tmp_path: Path) -> None:
    writer = new_ledger()
    whole_study(writer)
    first, second = [], []
    for found in (first, second):
        assert main(["--storage", str(tmp_path)]) == 0
        found += [file.read_bytes() for file in sorted((writer.study / "report").rglob("*.*"))]
    assert first == second


def test_every_file_of_a_folder_with_an_odd_name_lies_in_it(
    new_ledger: Begin, whole_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shells leave ``--storage=~/results`` as it is, and so do we; polars alone would not."""
    writer = new_ledger()
    whole_study(writer)
    monkeypatch.chdir(tmp_path)
    for name in ("~", "file:x"):
        folder = tmp_path / name / "sar-ablation"
        (folder / "ledger").mkdir(parents=True)
        (folder / "ledger" / writer.file.name).write_bytes(writer.file.read_bytes())
        assert main(["sar-ablation", "--storage", name]) == 0
        written = {path.name for path in (folder / "report").iterdir()}
        assert {"table.csv", "trials.csv", "search.csv", "winners.csv", "table.md", "report.html"} <= written


def test_without_a_name_the_study_that_changed_last(
    new_ledger: Begin, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, name in ((100, "older"), (200, "newer"), (50, "oldest")):
        writer = new_ledger(name)
        writer.open(study=name)
        os.utime(writer.file, (age, age))
        os.utime(writer.file.parent, (age, age))
    monkeypatch.setenv("SARX_STORAGE", str(tmp_path))
    assert main([]) == 0
    assert capsys.readouterr().out.startswith(f"the study that changed last: {tmp_path / 'newer'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sar-ablaton"], "did you mean 'sar-ablation'?"),
        (["zzz"], "known: sar-ablation"),
        (["sar-ablation"], "holds no complete line yet"),
    ],
)
def test_mistakes(
    new_ledger: Begin, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    new_ledger()
    assert main([*arguments, "--storage", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_no_study_and_a_bad_line_as_a_command(new_ledger: Begin, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis", "--storage"]
    root = Path(__file__).parents[2]
    empty = subprocess.run([*command, str(tmp_path / "none")], cwd=root, capture_output=True, text=True)
    assert empty.returncode == 2
    assert "no study under" in empty.stderr
    writer = new_ledger()
    writer.raw("bad\n")
    writer.open()
    bad = subprocess.run([*command, str(tmp_path)], cwd=root, capture_output=True, text=True)
    assert bad.returncode == 2
    assert "events.ndjson:1: a bad line" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_analysis_knows_the_ledger_schema_and_nothing_else_of_sarx() -> None:
    code = (
        "import sys, analysis.__main__; "
        "print(sorted(m for m in sys.modules if m.startswith(('sarx', 'torch', 'ray.', 'optuna'))))"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['sarx', 'sarx.study', 'sarx.study.ledger_schema']"
