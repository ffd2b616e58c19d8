"""report.html: one file, everything escaped, nothing asked from outside, readable in both schemes."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from analysis.__main__ import write_report
from analysis.figures.drawing import Drawing
from analysis.html import PAGE, of_search, to_html
from analysis.report import make_report
from tests.analysis.conftest import LedgerWriter
from tests.analysis.paper_study import PROVENANCE, plan, write_paper_study

Begin = Callable[..., Any]
NASTY = (
    "</style></script><script>alert(1)</script><img src=x onerror=alert(2)> \\input{x} =1+1 "
    "\"q\" 'a' &amp; \u00e9\u4e2d"
)
VOID = {"meta", "link", "img", "wbr"}


class Page(HTMLParser):
    """The elements of a page: tag, attributes and text, in order; checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.path: list[int] = []
        self.feed(text)
        self.close()
        assert self.path == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.path.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.path.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for place in self.path:
            self.elements[place][2].append(data)

    def all(self, *tags: str) -> list[tuple[str, dict[str, str | None], str]]:
        """Return the elements with one of these tags, with all text inside."""
        return [(tag, found, "".join(text)) for tag, found, text in self.elements if tag in tags]


def shown(writer: Any) -> str:
    """Return the page of a study without its figures."""
    return to_html(make_report(writer.study), [], writer.study)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the report folder of a whole study."""
    writer = LedgerWriter(tmp_path_factory.mktemp("paper") / "sar-ablation")
    write_paper_study(writer)
    write_report(make_report(writer.study), writer.study / "report")
    return writer.study / "report"


@pytest.fixture(scope="module")
def text(paper: Path) -> str:
    """Return the page of a whole study."""
    return (paper / "report.html").read_text(encoding="utf-8")


def section(text: str, key: str) -> str:
    """Return one section of a page."""
    found = re.search(rf'<section id="{key}".*?</section>', text, re.DOTALL)
    assert found is not None, key
    return found[0]


def test_sections_tables_and_headings(text: str) -> None:
    page = Page(text)
    assert page.elements[0][:2] == ("html", {"lang": "en"})
    headings = page.all("h1", "h2", "h3", "h4")
    levels = [int(tag[1]) for tag, *_ in headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    ids = [found["id"] for _, found, _ in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    links = [found["href"] for _, found, _ in page.all("a")]
    assert links[0] == "#results"  # the skip link comes first
    assert all((link or "")[1:] in ids for link in links)
    assert len(links) == 12
    tables, captions = page.all("table"), page.all("caption")
    assert len(tables) == len(captions) >= 8
    numbers = [caption.partition(".")[0] for *_, caption in captions]
    assert numbers == [f"Table {number}" for number in range(1, len(tables) + 1)]
    assert all("scope" in found for _, found, _ in page.all("th"))
    pictures = page.all("img")
    assert len(pictures) >= 2
    assert all(found["alt"] for _, found, _ in pictures)
    assert any(
        (found["alt"] or "").startswith("Paired differences of test/miou to sar, with 95 % intervals: ")
        for _, found, _ in pictures
    )
    assert "Nothing: the tables are complete." in section(text, "missing")
    assert "9 arms were compared" in section(text, "methods")
    assert "CUDA out of memory" in section(text, "failures")
    assert "node-17.example" in section(text, "provenance")
    assert "ablation:\n  factors:" in section(text, "file")


def test_nothing_can_be_fetched(text: str) -> None:
    page = Page(text)
    policy = page.all("meta")[1][1]["content"] or ""
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        ((_, _, inside),) = page.all(tag)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    for tag, found, _ in page.elements:
        assert not [name for name in found if name.startswith("on") or name in ("style", "srcset", "action")]
        for name in ("src", "href"):
            assert (found.get(name) or "data:").startswith(("data:", "#")), (tag, found)
    outside = re.sub(r"data:image/[^\"]*", "", text)
    assert "http" not in outside.replace("http-equiv", "")
    assert "url(" not in outside
    assert "@import" not in outside


def test_the_pictures_are_the_files_that_were_written(paper: Path, text: str) -> None:
    pictures = [found for _, found, _ in Page(text).all("img")]
    written = [path.read_bytes() for path in (paper / "figures").glob("*.svg")]
    shown = []
    for found in pictures:
        kind, _, data = (found["src"] or "").partition(",")
        assert kind == "data:image/svg+xml;base64"
        shown.append(base64.b64decode(data))
        root = ElementTree.fromstring(shown[-1])
        sizes = [(root.get(name) or "").removesuffix("pt") for name in ("width", "height")]
        expected = [round(float(size) * 4 / 3) for size in sizes]
        assert [int(found[name] or 0) for name in ("width", "height")] == expected
    assert sorted(shown) == sorted(written)


def nasty_plan() -> dict[str, Any]:
    """Return a plan in which every name that the page shows is hostile."""
    payload = plan(study=NASTY, question=NASTY, budget=NASTY, file=NASTY, command=NASTY, scores=NASTY)
    for row in payload["arms"]:
        row["arm"] = row["arm"] if row["arm"] in ("sar", "no_pull") else row["arm"] + NASTY
        row["level"] = NASTY
        row["parameters"] = [NASTY]
        row["overrides"] = {NASTY: NASTY}
        row["warnings"] = [NASTY]
    payload["arms"] = payload["arms"][: len(payload["arms"]) // 2]
    payload["plan"] |= {"base": [NASTY], "space": {NASTY: NASTY}, "overrides": {NASTY: NASTY}}
    payload["code"] = {"digest": NASTY, "files": {}, "kept": [NASTY]}
    payload["versions"] = {"torch": NASTY, NASTY: NASTY}
    payload["provenance"] = {
        **PROVENANCE,
        "host": NASTY,
        "command": NASTY + "2",
        "os": NASTY,
        "git": {"commit": NASTY, "dirty": True, "diff": NASTY, "diff_sha256": NASTY, "reason": NASTY},
        "devices": {"cpu": NASTY, "cpus": 2, "memory_gib": NASTY, "gpus": [NASTY]},
    }
    return payload


def test_every_name_is_escaped(new_ledger: Begin) -> None:
    writer = new_ledger()
    payload = nasty_plan()
    writer.code = NASTY
    writer.add("study_opened", payload=payload)
    for arm in ("sar", "no_pull"):
        point = [{"name": NASTY, "value": '"' + "<b>" + '"'}]
        where = {"arm": arm, "level": NASTY, "trial_id": f"{arm}{NASTY}", "index": 0}
        writer.add("proposed", **where, phase="search", seed=1, parameters=point, **writer.coded())
        writer.add("selected", **where, parameters=point, metrics={"val/miou": 0.5})
        for seed in range(3):
            writer.claim(arm, NASTY, seed, f"c-{arm}-{seed}")
            writer.finish(f"c-{arm}-{seed}", {"test/miou": 0.5 + 0.01 * seed, f"test/tail_{NASTY}": 0.1})
    writer.add("failed", trial_id=NASTY, attempt=1, phase="confirm", payload={"kind": NASTY, "reason": NASTY})
    writer.add("forgotten", trial_id=NASTY, payload={"reason": NASTY + "\x00\x1b[31m\ud800"})
    text = shown(writer)
    page = Page(text)
    allowed = "html head meta link title style body a header h1 p nav ul li main section h2 div table caption"
    allowed += " b thead tr th tbody td span strong wbr blockquote dl dt dd details summary pre footer script"
    assert {tag for tag, *_ in page.elements} <= set(allowed.split())
    assert len(page.all("script")) == 1
    assert len(page.all("style")) == 1
    for _, found, _ in page.elements:
        assert not [name for name in found if name.startswith("on")]
        assert set("<>\"'").isdisjoint(found.get("class") or "")
    assert "\x00" not in text
    assert "\x1b" not in text
    assert re.sub(r"\s+", " ", page.all("body")[0][2]).count(NASTY) > 30
    for place in ("missing", "results", "methods", "search", "failures", "provenance", "checklist", "file"):
        inside = re.sub(r"\s+", " ", Page(section(text, place)).all("section")[0][2])
        assert NASTY in inside, place
    assert (page.all("title")[0][2], page.all("h1")[0][2]) == (f"{NASTY}: report", NASTY)


def test_words_of_figures_are_escaped(new_ledger: Begin, tmp_path: Path) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=0, searches=0)
    (tmp_path / "x.svg").write_bytes(b"<svg>")
    drawing = Drawing("x", NASTY, NASTY, Figure(), NASTY)
    text = to_html(make_report(writer.study), [drawing], tmp_path)
    ((_, found, _),) = Page(text).all("img")
    assert found == {"src": "data:image/svg+xml;base64,PHN2Zz4=", "alt": NASTY}
    ((_, _, words),) = Page(text).all("figcaption")
    assert words == f"Figure 1. {NASTY}. {NASTY}"


def test_a_running_study_says_what_is_missing_and_shows_no_search_score_as_result(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=0, searches=4)
    text = shown(writer)
    assert "Interim: 0 of 180 confirm trials have ended." in section(text, "missing")
    assert "Search: 32 of 144 trials have ended" in section(text, "missing")
    results = Page(section(text, "results"))
    numbers = [inside for tag, _, inside in results.all("td") if re.match(r"[<+-]?\.\d", inside)]
    assert numbers == []
    assert ".7100" in section(text, "search")
    assert "not results" in section(text, "search")
    assert ".7100" not in text.replace(section(text, "search"), "")
    assert "Interim report" in section(text, "methods")
    assert '<section id="figures">' not in text


def test_a_broken_study_is_shown_as_far_as_it_goes(new_ledger: Begin) -> None:
    writer = new_ledger(old=True)
    writer.open(file=None, versions=None, provenance=None, code=None, question=None)
    writer.raw('{"v":1,"se')
    text = shown(writer)
    assert "A last line cut off in the middle was ignored" in section(text, "missing")
    assert "The ledger does not hold it." in section(text, "file")
    assert "None: no attempt failed" in section(text, "failures")


def test_the_same_ledger_gives_the_same_bytes(paper: Path, tmp_path: Path) -> None:
    write_report(make_report(paper.parent), tmp_path)
    again = (tmp_path / "report.html").read_bytes()
    assert again == (paper / "report.html").read_bytes()
    assert b"996 events, the last of 2023-11-14 22:29:55 UTC" in again


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Search (its scores choose the winners; they are not results)", True),
        ("Winners (trial_id of the search trial)", True),
        ("Trade-offs (finished search trials)", True),
        ("Search history: search scores, not results", True),
        ("Importance of parameters (PED-ANOVA; no results)", True),
        ("Gate of SAR (mean over confirm seeds)", False),
        ("Research: differences to sar", False),
        ("Cost of each arm", False),
    ],
)
def test_which_tables_and_figures_stand_apart(title: str, expected: bool) -> None:
    assert of_search(title) is expected


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (WCAG 2.1)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.1)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_every_text_colour_on_every_ground() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)  # the well-known near miss
    style = Path(PAGE / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 3  # light, dark, print
    for block in blocks:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        assert set(colours) == {
            *("page", "panel", "ink", "muted", "link", "good", "bad", "same", "warn", "rule", "strong-rule")
        }
        for ground in ("page", "panel"):
            for ink in ("ink", "muted", "link", "good", "bad", "same", "warn"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground, colours)
    used = set(re.findall(r"(?<![-\w])(?:color|background): ([^;]+);", style))
    assert {value for value in used if not value.startswith("var(")} <= {"inherit", "none", "#ffffff"}
