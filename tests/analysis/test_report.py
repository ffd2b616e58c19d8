"""Whole reports of synthetic studies: complete, running, odd."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from analysis.csv_file import without_formulas
from analysis.figures.forest import forest_plot
from analysis.markdown import escape, to_markdown
from analysis.report import Report, make_report

Begin = Callable[..., Any]
SMALL, LARGE = "model=small", "model=large"


def cells(report: Report, level: int, arm: str) -> dict[str, str]:
    table = report.tables[level]
    row = next(row for row in table.rows if row[0] == arm)
    return dict(zip(table.columns, row, strict=True))


def simple_study(writer: Any, metrics_of: Any, scores: dict[str, list[float | None]], **plan: Any) -> Report:
    """Write a study without search: the scores of each arm by seed; None has not finished."""
    seeds = max(map(len, scores.values()))
    writer.open(
        arms=tuple(scores), levels=("",), trials_per_arm=0, **{"seeds": seeds, "reference": "sar", **plan}
    )
    for arm, values in scores.items():
        for seed, value in enumerate(values):
            writer.claim(arm, "", seed, f"{arm}-{seed}")
            if value is not None:
                writer.finish(f"{arm}-{seed}", metrics_of(value))
    return make_report(writer.study)


def test_numbers_equal_scipy(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    scores = whole_study(writer)
    tidy = make_report(writer.study).comparison.tidy
    seeds = [seed for seed in range(8) if seed != 3]
    arm = np.array([scores[SMALL, "no_pull", seed] for seed in seeds])
    reference = np.array([scores[SMALL, "sar", seed] for seed in seeds])
    row = tidy.filter(level=SMALL, arm="no_pull", metric="test/miou").row(0, named=True)
    low, high = stats.t.interval(0.95, 6, (arm - reference).mean(), stats.sem(arm - reference))
    test = stats.ttest_rel(arm, reference)
    found = [row[name] for name in ("mean", "n", "diff", "diff_lo", "diff_hi", "p", "correlation")]
    expected = [
        arm.mean(),
        7,
        (arm - reference).mean(),
        low,
        high,
        test.pvalue,
        np.corrcoef(arm, reference)[0, 1],
    ]
    assert found == pytest.approx(expected, rel=1e-9)


def test_family_spans_levels_without_reference_and_identical_rows(
    new_ledger: Begin, whole_study: Any
) -> None:
    writer = new_ledger()
    whole_study(writer)
    report = make_report(writer.study)
    tested = [
        (report.comparison.rows[row].level, report.comparison.rows[row].arm)
        for row in report.comparison.family
    ]
    assert tested == [(SMALL, "no_pull"), (SMALL, "no_aux"), (LARGE, "no_pull"), (LARGE, "no_aux")]
    assert any("family of 4 rows" in line for line in report.caption)


def test_rows_of_the_table(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer)
    report = make_report(writer.study)
    assert report.missing == []
    assert [row[0] for row in report.tables[0].rows] == ["sar", "no_pull", "no_aux", "cross_entropy"]
    assert cells(report, 0, "sar")["verdict"] == "reference"
    assert cells(report, 0, "no_pull")["verdict"] == "better"
    assert cells(report, 0, "no_pull")["seeds"] == "7 of 8, 1 diverged"
    assert cells(report, 0, "no_pull")["trials"] == "2 of 2"
    assert cells(report, 0, "no_aux")["verdict"] == "worse"
    for level in (0, 1):
        twin = cells(report, level, "cross_entropy")
        assert (twin["verdict"], twin["p (Holm)"]) == ("identical to no_aux", "-")
    caption = " ".join(report.caption)
    for statement in (
        "Winners chosen on val/miou (val split); reported is test/miou",
        "Conditional on the tuned configurations",
        "Given convergence",
        "Correlation of the pairs",
        "cross_entropy is identical to no_aux (model=small): the same trials.",
        "(model=large): every report metric of every pair agrees bit for bit.",
    ):
        assert statement in caption
    assert report.extras[1].columns == ["arm", "train/gate_open_share", "train/first_open_step"]


def test_the_retried_attempt_is_the_one_that_counts(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    scores = whole_study(writer)
    tidy = make_report(writer.study).comparison.tidy
    mean = tidy.filter(level=LARGE, arm="sar", metric="test/miou")["mean"].item()
    assert mean == pytest.approx(np.mean([scores[LARGE, "sar", seed] for seed in range(8)]))


def test_no_search_score_enters_table_or_csv(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer)
    report = make_report(writer.study)
    assert not any(name.startswith("val/") for name in report.comparison.tidy["metric"])
    searching = new_ledger("searching")
    searching.open()
    searching.search("sar", SMALL)
    report = make_report(searching.study)
    assert {row[1] for table in report.tables for row in table.rows} == {"-"}
    assert report.comparison.tidy["mean"].null_count() == report.comparison.tidy.height
    assert any(line.startswith("No winner selected yet: no_pull (model=small)") for line in report.missing)


def test_a_running_study(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer, seeds_done=4)
    report = make_report(writer.study)
    assert cells(report, 0, "no_pull")["seeds"] == "3 of 8, 1 diverged, 4 to come"
    assert cells(report, 1, "sar")["seeds"] == "4 of 8, 4 to come"
    assert report.missing[0].startswith("Interim: 32 of 64 confirm trials have ended.")
    assert cells(report, 0, "no_pull")["verdict"] == "no mark (lost seeds)"  # 1 of the 4 that ended


def test_one_seed_has_a_mean_without_interval_and_no_verdict(new_ledger: Begin, metrics_of: Any) -> None:
    report = simple_study(new_ledger(), metrics_of, {"sar": [0.25, None], "a": [0.5, None]})
    row = cells(report, 0, "a")
    assert (row["test/miou"], row["difference"], row["verdict"]) == (".500", "+.250", "not yet")
    assert any(line.startswith("One finished seed") for line in report.missing)


def test_an_arm_identical_to_the_reference_is_not_tested(new_ledger: Begin, metrics_of: Any) -> None:
    scores = [0.25, 0.5, 0.75, 0.25]
    report = simple_study(new_ledger(), metrics_of, {"sar": scores, "a": scores, "b": [*scores[:3], 0.26]})
    row = cells(report, 0, "a")
    assert (row["difference"], row["p (Holm)"], row["verdict"]) == ("-", "-", "identical to sar")
    assert report.comparison.family == [2]


def test_too_many_lost_seeds_give_no_mark(new_ledger: Begin, metrics_of: Any) -> None:
    nan = float("nan")
    scores = {"sar": [0.1, 0.11, 0.12, 0.1, 0.13], "a": [0.51, 0.5, 0.52, nan, nan]}
    report = simple_study(new_ledger(), metrics_of, scores)
    row = cells(report, 0, "a")
    assert (row["verdict"], row["seeds"]) == ("no mark (lost seeds)", "3 of 5, 2 not finite")
    scores["a"] = [0.51, 0.5, 0.52, 0.5, nan]
    assert cells(simple_study(new_ledger("b"), metrics_of, scores), 0, "a")["verdict"] == "better"


def test_secondary_metrics_get_their_own_family_and_others_no_p(new_ledger: Begin, metrics_of: Any) -> None:
    scores = {"sar": [0.1, 0.11, 0.12, 0.1, 0.13], "a": [0.51, 0.5, 0.52, 0.5, 0.51]}
    plan = {"report": {"primary": "test/miou", "secondary": ["test/tail_iou"]}}
    report = simple_study(new_ledger(), metrics_of, scores, **plan)
    assert cells(report, 0, "a")["test/tail_iou"].endswith(" *")
    assert not cells(report, 0, "a")["test/head_iou"].endswith(" *")
    tested = report.comparison.tidy.filter(pl.col("p").is_not_null())["metric"].to_list()
    assert tested == ["test/miou", "test/tail_iou"]


def test_seeds_and_arms_of_an_earlier_plan_are_left_out_and_named(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    simple_study(writer, metrics_of, {"sar": [0.1, 0.2, 0.3], "a": [0.1, 0.2, 0.4]})
    writer.open(arms=("sar",), levels=("",), trials_per_arm=0, seeds=2)
    report = make_report(writer.study)
    assert cells(report, 0, "sar")["seeds"] == "2 of 2"
    assert "4 finished confirm trials of an earlier plan or other code are left out." in report.missing


def test_stale_claims_are_to_come_and_named_as_left_out(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    simple_study(writer, metrics_of, {"sar": [0.1, 0.2, 0.3], "a": [0.2, 0.3, 0.5]})
    plan = {"levels": ("",), "trials_per_arm": 0, "seeds": 3, "arms": ("sar", "a")}
    writer.open(**plan, code={"digest": "new"})
    for seed in range(3):
        writer.claim("sar", "", seed, f"new-{seed}")
        writer.finish(f"new-{seed}", metrics_of(0.5))
    report = make_report(writer.study)
    assert [cells(report, 0, arm)["seeds"] for arm in ("sar", "a")] == ["3 of 3", "0 of 3, 3 to come"]
    assert cells(report, 0, "a")["difference"] == "-"
    assert "6 finished confirm trials of an earlier plan or other code are left out." in report.missing
    assert "No winner selected yet: a." in report.missing


def test_the_caption_says_what_scores_average_and_how_proposals_were_scored(
    new_ledger: Begin, whole_study: Any
) -> None:
    writer = new_ledger()
    whole_study(writer)
    assert make_report(writer.study).caption[1:4:2] == [
        "miou is the mean over 10 of 11 classes.",
        "Conditional on the tuned configurations: 2 search trials per arm, one seed each, 600 steps.",
    ]
    for name, old, scores in (("empty", False, ""), ("old", True, "left out")):
        writer = new_ledger(name, old=old)
        writer.open(scores=scores)
        assert make_report(writer.study).caption[1].startswith("Conditional on the tuned")


def test_failed_confirm_trials_and_how_to_retry_them(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    simple_study(writer, metrics_of, {"sar": [0.1, 0.2], "a": [0.2, None]})
    writer.add("failed", trial_id="a-1", attempt=1, phase="confirm", payload={})
    missing = make_report(writer.study).missing
    assert "1 confirm trials failed; raise max_failures to have them retried." in missing


@pytest.mark.parametrize(
    ("primary", "sentence"),
    [
        ("test/miuo", "called test/miuo; the ledger has: test/miou, test/"),
        ("miou", "called miou; the ledger has: test/miou, test/"),
        ("val/iou", "called val/iou; the ledger has: val/miou."),
    ],
)
def test_a_primary_metric_that_no_trial_has(
    new_ledger: Begin, metrics_of: Any, primary: str, sentence: str
) -> None:
    plan = {"report": {"primary": primary}}
    report = simple_study(new_ledger(), metrics_of, {"sar": [0.1, 0.2], "a": [0.1, 0.3]}, **plan)
    assert any(line.startswith(f"No finished trial has a metric {sentence}") for line in report.missing)


def test_a_primary_metric_that_is_never_finite_and_one_not_finished_yet(
    new_ledger: Begin, metrics_of: Any
) -> None:
    nan = float("nan")
    report = simple_study(new_ledger(), metrics_of, {"sar": [nan, nan], "a": [nan, None]})
    assert "No finished trial has a finite test/miou." in report.missing
    report = simple_study(new_ledger("b"), metrics_of, {"sar": [None], "a": [None]})
    assert not any(line.startswith("No finished trial") for line in report.missing)


def test_tuned_on_the_reported_split_is_said(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(selection="report")
    assert make_report(writer.study).caption[0].startswith("Tuned on the reported split")


def test_kept_code_versions_and_warnings_are_in_the_caption(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    rows = [
        {"arm": arm, "level": "", "warnings": ["aux_weight 0 never opens the gate"]} for arm in ("sar", "a")
    ]
    for seed, digest in enumerate(["aaaa", "bbbb"]):
        writer.add(
            "study_opened",
            payload={
                "study": "s",
                "report": {"primary": "test/miou"},
                "reference": "sar",
                "arms": rows,
                "seeds": 2,
                "code": {"digest": digest},
            },
        )
        for arm in ("sar", "a"):
            writer.claim(arm, "", seed, f"{arm}-{seed}")
            writer.finish(f"{arm}-{seed}", metrics_of(0.25))
    caption = " ".join(make_report(writer.study).caption)
    assert "Trials of 2 code versions were kept: aaaa, bbbb." in caption
    assert "agrees bit for bit; aux_weight 0 never opens the gate. Not tested." in caption


def test_markdown_holds_headings_and_escaped_names(new_ledger: Begin, metrics_of: Any) -> None:
    scores = {"sar": [0.1, 0.11], "a|b_": [0.1, 0.12]}
    report = simple_study(new_ledger(), metrics_of, scores, question="<b>Why</b> [x](y) *now*?")
    text = to_markdown(report)
    assert text.startswith(
        "# sar-ablation\n\n&lt;b>Why&lt;/b> [x\\](y) \\*now\\*?\n\n## demonstration budget\n"
    )
    assert "| a\\|b\\_ " in text
    assert {len(line) for line in text.splitlines() if line.startswith("| sar")} != set()
    _, _, end = text.partition("\n\n## Methods\n\n2 arms were compared: sar, a\\|b\\_;")
    assert end.partition("\n\n## Checklist\n\n| question ")[2].count("\n| ") == 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a", "\\- a"),
        ("1. a", "1\\. a"),
        ("a_b", "a_b"),
        ("_a_", "\\_a\\_"),
        ("p <= .05", "p <= .05"),
        ("a\nb", "a b"),
    ],
)
def test_escape(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_csv_is_full_precision_and_safe_in_spreadsheets() -> None:
    tidy = pl.DataFrame({"arm": ["=1+1", "@a", "ok,|", "-x", "+x"], "diff": [-0.1, 1 / 3, None, 1e-17, 2.0]})
    lines = without_formulas(tidy).write_csv().splitlines()
    assert lines == ["arm,diff", "'=1+1,-0.1", "'@a,0.3333333333333333", '"ok,|",', "'-x,1e-17", "'+x,2.0"]


def test_figure_has_a_panel_per_level_and_a_line_per_arm(new_ledger: Begin, whole_study: Any) -> None:
    writer = new_ledger()
    whole_study(writer)
    report = make_report(writer.study)
    (drawing,) = forest_plot(report.sources)
    panels = drawing.figure.axes
    assert [panel.get_title() for panel in panels] == [SMALL, LARGE]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == [
        "no_pull",
        "no_aux",
        "cross_entropy",
    ]
