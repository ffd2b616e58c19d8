"""Cited rows: apart from what was measured, and no look when they change."""

from collections.abc import Callable
from typing import Any

from analysis.latex import to_latex
from analysis.markdown import to_markdown
from analysis.report import Report, make_report

Begin = Callable[..., Any]
DEEPLAB = {
    "name": "DeepLabV3+ [3]",
    "value": 0.785,
    "source": "Chen et al. 2018, table 5",
    "setting": "Cityscapes val, 80k it.",
}
FCN = {"name": "FCN", "value": 0.65, "source": "theirs", "setting": ""}
REPORT = {"primary": "test/miou", "smallest_effect": 0.02, "secondary": []}


def with_cited(writer: Any, metrics_of: Any, *openings: list[dict[str, Any]]) -> Report:
    """Write two finished arms, then a start for each list of cited rows."""
    for number, cited in enumerate(openings):
        report = {**REPORT, "cited": cited} if cited else REPORT
        writer.open(arms=("sar", "a"), levels=("",), seeds=3, trials_per_arm=0, report=report)
        for arm in ("sar", "a") if number == 0 else ():
            for seed in range(3):
                writer.claim(arm, "", seed, f"{arm}-{seed}")
                writer.finish(f"{arm}-{seed}", metrics_of(0.5 + 0.01 * seed + 0.1 * (arm == "a")))
    return make_report(writer.study)


def test_cited_rows_stand_apart_without_interval_or_test(new_ledger: Begin, metrics_of: Any) -> None:
    plain = with_cited(new_ledger("plain"), metrics_of, [])
    report = with_cited(new_ledger(), metrics_of, [DEEPLAB, FCN])
    (table,) = [table for table in report.extras if table.title == "Cited, not measured here"]
    assert table.columns == ["cited", "test/miou", "setting", "source"]
    assert table.rows == [
        ["DeepLabV3+ [3]", ".785", "Cityscapes val, 80k it.", "Chen et al. 2018, table 5"],
        ["FCN", ".65", "not said", "theirs"],
    ]
    assert "no part in any test" in table.notes[0]
    assert report.tables == plain.tables
    assert report.caption == plain.caption
    assert report.comparison.tidy.equals(plain.comparison.tidy)
    assert not any(table.title.startswith("Cited") for table in plain.extras)
    for text in (to_markdown(report), to_latex(report)):
        assert text.count("Cited, not measured here") == 1
        assert "no part in any test" in text


def test_a_change_of_cited_rows_is_listed_and_is_no_look(new_ledger: Begin, metrics_of: Any) -> None:
    other = {**FCN, "value": 0.66}
    report = with_cited(new_ledger(), metrics_of, [], [FCN], [DEEPLAB, other], [DEEPLAB])
    assert report.study.looks == 1
    assert report.study.changes == (
        "start 2, after confirm results were known: cited rows: added FCN",
        "start 3, after confirm results were known: cited rows: added DeepLabV3+ [3]; changed FCN",
        "start 4, after confirm results were known: cited rows: removed FCN",
    )


def test_a_change_of_the_report_itself_is_still_a_look(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    with_cited(writer, metrics_of, [FCN])
    report = {**REPORT, "smallest_effect": 0.05, "cited": [FCN]}
    writer.open(arms=("sar", "a"), levels=("",), seeds=3, trials_per_arm=0, report=report)
    study = make_report(writer.study).study
    assert study.looks == 2
    assert len(study.changes) == 1
    assert "smallest_effect" in study.changes[0]
    assert "FCN" not in study.changes[0]
