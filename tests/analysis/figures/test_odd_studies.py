"""Studies that are empty, running, tiny or hostile: no exception, and nothing drawn that is not there."""

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.figures import FIGURES, draw, save
from analysis.report import make_report

Begin = Callable[..., Any]
HOSTILE = ("$x^", "<script>alert(1)</script>", "a" * 300, "]]> --> & \x01 \u4e2d\u6587 \\frac{1}{", "=1+1")


def drawn(written: Any) -> dict[str, int]:
    """Return how many figures of each kind a study has."""
    sources = written.sources
    return {name: count for name, make in FIGURES.items() if (count := len(make(sources)))}


def test_a_study_that_has_only_begun_has_no_figure(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open()
    assert draw(make_report(writer.study).sources) == []


def test_a_study_in_its_search_has_the_figures_of_the_search(study: Begin) -> None:
    written = study(arms=("sar", "no_pull"), levels=("",), confirm=False)
    assert drawn(written) == {"search_history": 1, "parallel_coordinates": 1, "slices": 1}


def test_a_study_of_the_reference_alone(study: Begin) -> None:
    written = study(arms=("sar",), levels=("",), seeds=2)
    assert "forest" not in drawn(written)
    assert {"seeds", "learning_curves", "search_history", "slices", "confusion"} <= set(drawn(written))


def test_one_seed_has_means_without_intervals(study: Begin) -> None:
    written = study(arms=("sar", "no_pull"), levels=("",), seeds=1)
    drawings = draw(written.sources)
    assert {"forest", "seeds", "learning_curves", "class_gain"} <= {drawing.name for drawing in drawings}


def test_ledgers_without_parameters_epochs_and_files(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer, seeds_done=3)
    names = [drawing.name for drawing in draw(make_report(writer.study).sources)]
    assert names == ["forest", "seeds", "search_history_model_small", "search_history_model_large"]


def test_trials_that_recorded_only_their_end_have_no_curves(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    writer.open(arms=("sar", "no_pull"), levels=("",), seeds=2)
    for arm in ("sar", "no_pull"):
        for seed in range(2):
            writer.claim(arm, "", seed, f"{arm}-{seed}")
            writer.finish(f"{arm}-{seed}", metrics_of(0.3))
    assert FIGURES["learning_curves"](make_report(writer.study).sources) == []


def test_values_that_are_not_finite_are_left_out(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(arms=("sar", "no_pull"), levels=("",), seeds=3)
    for arm in ("sar", "no_pull"):
        for seed, value in enumerate((float("nan"), float("inf"), 0.3)):
            trial = f"{arm}-{seed}"
            writer.claim(arm, "", seed, trial)
            at = {"trial_id": trial, "attempt": 1, "phase": "confirm", "duration_s": 1.0}
            writer.add("epoch", **at, epoch=1, step=10, metrics={"train/loss": value, "val/miou": value})
            end = {"test/miou": value, "train/loss": -value, "val/miou": value}
            writer.add("trial_finished", **at, epoch=2, step=20, metrics=end)
    names = [drawing.name for drawing in draw(make_report(writer.study).sources)]
    assert names == ["forest", "seeds", "learning_curves"]


def test_independent_searches_stand_side_by_side(new_ledger: Begin) -> None:
    writer = new_ledger()
    plan = {"seed": 0, "sampler": "qmc", "space": {}, "base": [], "cpus_per_worker": 1, "repeats": 2}
    writer.open(arms=("sar", "no_pull"), levels=("",), trials_per_arm=3, plan=plan)
    for repeat in range(2):
        writer.search("sar", "", repeat=repeat, trials=3, tag=f"r{repeat}-")
    (drawing,) = FIGURES["search_history"](make_report(writer.study).sources)
    lines = [line for line in drawing.figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert [len(line.get_xdata()) for line in lines] == [4, 4]
    assert max(lines[0].get_xdata()) < min(lines[1].get_xdata())


def test_hostile_names_are_only_text(study: Begin, folder: Path) -> None:
    written = study(
        arms=HOSTILE, levels=("$\\alpha$", "<b>"), seeds=2, trials=2, classes=("$y$", *HOSTILE), files=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawings = draw(written.sources)
        assert len({drawing.name for drawing in drawings}) == len(drawings)
        for drawing in drawings[:1] + drawings[-1:]:
            svg, _ = save(drawing, folder)
            text = svg.read_text()
            assert "<script" not in text
            assert "\x01" not in text
    for drawing in drawings:
        assert re.fullmatch("[a-z0-9_]+", drawing.name)


def test_equal_studies_give_equal_bytes(study: Begin, folder: Path) -> None:
    written = study(
        arms=("sar", "no_pull"), levels=("",), seeds=2, trials=4, classes=("nothing", "cat", "dog")
    )
    sources, found = written.sources, []
    for run in ("first", "second"):
        (folder / run).mkdir()
        drawings = draw(sources)
        for place, drawing in enumerate(drawings):
            save(drawing, folder / run, ("svg", "pdf") if place < 2 else ("svg",))
        found.append({path.name: path.read_bytes() for path in sorted((folder / run).iterdir())})
    assert found[0] == found[1]
    assert (len(found[0]), len(drawings)) == (10, 8)
    assert all(b"/Type3" not in data and b"CreationDate" not in data for data in found[0].values())


def test_a_report_without_figures_needs_no_matplotlib(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer, seeds_done=2)
    code = (
        "import sys, pathlib, analysis.__main__, analysis.report as r; "
        "r.make_report(pathlib.Path(sys.argv[1])); print('matplotlib' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(writer.study)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"
