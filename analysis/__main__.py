"""From a study's ledger to its table: ``python -m analysis [STUDY] [--storage DIR]``."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
from rich.console import Console

from analysis.csv_file import without_formulas
from analysis.errors import UserError
from analysis.html import to_html
from analysis.latex import preview, to_latex
from analysis.markdown import to_markdown
from analysis.remote import is_url, open_remote
from analysis.report import Report, make_report
from analysis.studies import find_study, storage_folder, storage_name
from analysis.terminal import LOG_WIDTH, print_report


def main(arguments: list[str] | None = None) -> int:
    """Print and write the report of one study; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__.partition(":")[0])
    parser.add_argument("study", nargs="?", help="name of the study (default: the one that changed last)")
    parser.add_argument(
        "--storage", help="folder or s3:// URL of the studies (default: $SARX_STORAGE, else results/)"
    )
    options = parser.parse_args(arguments)
    gc.set_threshold(100_000)  # large frames of many small objects, of which next to none are garbage
    try:
        storage = storage_name(options.storage)
        remote = open_remote(storage, options.study) if is_url(storage) else None
        folder = remote.fetch() if remote else find_study(storage_folder(options.storage), options.study)
        report = make_report(folder)
        paths = write_report(report, folder / "report")
        places = remote.publish(folder, paths) if remote else paths
    except (UserError, OSError) as problem:
        print(f"python -m analysis: {problem}", file=sys.stderr)
        return 2
    console = _console()
    if options.study is None:
        print(f"the study that changed last: {folder}")
    print_report(report, console)
    for place in places[:-1]:
        print(place)
    page = paths[-1]  # of an object store the copy here, which a browser can open
    print(f"curves and images: just tensorboard {folder.name}")
    print(f"the whole report, open it in a browser: {page}")
    return 0


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``table.md``, ``.csv``, ``.tex``, CSV, ``figures/``, ``report.html``; return the paths."""
    from analysis.figures import draw, save  # matplotlib, which tables alone need not wait for

    (folder / "figures").mkdir(parents=True, exist_ok=True)
    texts = {"table.md": to_markdown(report), "table.tex": to_latex(report), "preview.tex": preview(report)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    frames = {"table.csv": report.comparison.tidy, **report.frames}
    with ThreadPoolExecutor(1) as pool:  # polars writes them while the page is made
        written = [pool.submit(_write_csv, frame, folder / name) for name, frame in frames.items()]
        drawings = draw(report.sources)
        figures = [path for drawing in drawings for path in save(drawing, folder / "figures")]
        page = folder / "report.html"
        page.write_text(to_html(report, drawings, folder / "figures"), encoding="utf-8")
    for done in written:
        done.result()
    return [*(folder / name for name in (*texts, *frames)), *figures, page]


def _write_csv(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame that is safe to open in a spreadsheet."""
    with path.open("wb") as file:  # polars would read "~" and "file:" in a name as something else
        without_formulas(frame).write_csv(file)


def _console() -> Console:
    """Return a console of the terminal's width; in a log 100 columns, unless COLUMNS says otherwise."""
    in_log = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=LOG_WIDTH if in_log else None, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
