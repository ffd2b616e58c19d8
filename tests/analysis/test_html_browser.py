"""report.html in a real headless Chromium, opened from disk: sorting, requests, widths, schemes, print."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import write_report
from analysis.report import make_report
from tests.analysis.conftest import LedgerWriter
from tests.analysis.paper_study import write_paper_study
from tests.debian import needed

pytestmark = pytest.mark.slow

# Every element with text of its own: its text, contrast to the ground behind it, and its place.
CONTRASTS = """
() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const found = parts(getComputedStyle(e).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  return [...document.body.querySelectorAll("*")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .filter((e) => e.checkVisibility() && e.tagName !== "SCRIPT")
    .map((e) => {
      const both = [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((a, b) => b - a);
      return [e.textContent.trim().slice(0, 30), (both[0] + 0.05) / (both[1] + 0.05)];
    });
}
"""


class Tab:
    """A page of the browser, and what it asked for and said.

    Attributes:
        requests: addresses.
        said: console messages, errors, violations of the policy.
    """

    def __init__(self, browser: Any, width: int, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.requests: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.set_default_timeout(20_000)

    def goto(self, path: Path) -> Any:
        self.page.goto(path.as_uri())
        return self.page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return Debian's Chromium without a window; its network is cut off."""
    path = needed("chromium", "chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"]
        found = driver.chromium.launch(executable_path=path, args=arguments)
        yield found
        found.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the pages of a whole study, a running one, and one with very long names."""
    storage = tmp_path_factory.mktemp("reports")
    long = "a" * 64
    studies: dict[str, dict[str, Any]] = {
        "whole": {},
        "running": {"seeds_done": 4, "study": "running"},
        "long": {
            "seeds_done": 1,
            "study": long,
            "question": "w" * 300,
            "command": "x" * 300,
            "file": "y" * 500,
        },
    }
    pages = {}
    for name, options in studies.items():
        writer = LedgerWriter(storage / name)
        write_paper_study(writer, **options)
        if name == "long":
            failure = {"kind": "crashed", "reason": "z" * 300}
            writer.add("failed", trial_id=long, attempt=1, phase="confirm", payload=failure)
        write_report(make_report(writer.study), writer.study / "report")
        pages[name] = writer.study / "report" / "report.html"
    return pages


def heading(page: Any, name: str) -> Any:
    """Return the heading of a column of the first table."""
    return page.locator("table").first.locator("thead th").filter(has_text=name)


def column(page: Any, number: int) -> list[str]:
    """Return the cells of a column of the first table, from above."""
    cells = page.locator("table").first.locator(f"tbody tr > :nth-child({number + 1})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_a_click_sorts_numbers_up_down_and_back(browser: Any, reports: dict[str, Path]) -> None:
    tab = Tab(browser, 1280)
    page = tab.goto(reports["whole"])
    planned, values = column(page, 0), column(page, 1)
    scores = [float(value.split()[0]) for value in values]
    assert planned[0] == "sar"
    assert scores != sorted(scores)
    button = heading(page, "test/miou").get_by_role("button")
    orders = []
    for _ in range(3):
        button.click()
        orders.append(heading(page, "test/miou").get_attribute("aria-sort"))
        if len(orders) < 3:
            now = [float(value.split()[0]) for value in column(page, 1)]
            assert now == sorted(scores, reverse=len(orders) == 2)
            assert column(page, 0) != planned
    assert orders == ["ascending", "descending", None]
    assert column(page, 0) == planned
    assert tab.said == []
    assert tab.requests == [reports["whole"].as_uri()]


def test_the_keyboard_sorts_signed_numbers_and_puts_missing_ones_last(
    browser: Any, reports: dict[str, Path]
) -> None:
    tab = Tab(browser, 1280)
    page = tab.goto(reports["whole"])
    differences = [value.split()[0] for value in column(page, 2)]
    assert differences[0] == "-"  # of the reference
    numbers = sorted(float(value) for value in differences[1:])
    assert numbers[0] < 0 < numbers[-1]
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").startswith("difference"):
            break
    outline = "(() => { const s = getComputedStyle(document.activeElement); return s.outline })()"
    assert "solid 3px" in page.evaluate(outline)
    for key, reverse in (("Enter", False), ("Space", True)):
        page.keyboard.press(key)
        now = [value.split()[0] for value in column(page, 2)]
        assert now[-1] == "-"
        assert [float(value) for value in now[:-1]] == sorted(numbers, reverse=reverse)
    assert heading(page, "difference").get_attribute("aria-sort") == "descending"
    assert page.locator("[aria-sort]").count() == 1
    assert tab.said == []


def test_text_sorts_as_text_and_the_skip_link_comes_first(browser: Any, reports: dict[str, Path]) -> None:
    page = Tab(browser, 1280).goto(reports["whole"])
    names = column(page, 0)
    heading(page, "arm").get_by_role("button").click()
    assert column(page, 0) == sorted(names)
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    assert page.locator(".skip").bounding_box()["x"] == 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "results"


@pytest.mark.parametrize("name", ["whole", "running", "long"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widths_contrast_and_silence(
    browser: Any, reports: dict[str, Path], name: str, scheme: str, tmp_path: Path
) -> None:
    for width in (360, 768, 1280):
        tab = Tab(browser, width, scheme)
        page = tab.goto(reports[name])
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        stacked = page.locator("#checklist .scroll")
        if width == 360:
            assert stacked.evaluate("(box) => box.scrollWidth <= box.clientWidth")
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 200
        assert [found for found in contrasts if found[1] < 4.5] == []
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")
        cards = page.evaluate("[...document.images].map((i) => getComputedStyle(i).backgroundColor)")
        assert set(cards) == {"rgb(255, 255, 255)"}
        assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
        picture = tmp_path / f"{name}-{width}-{scheme}.png"
        page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 10_000
        assert tab.said == []
        assert tab.requests == [reports[name].as_uri()]
        page.close()


@pytest.mark.parametrize("name", ["whole", "long"])
def test_print(browser: Any, reports: dict[str, Path], name: str, tmp_path: Path) -> None:
    tab = Tab(browser, 700, "dark")  # about the width of an A4 page between its margins
    page = tab.goto(reports[name])
    assert not page.locator("pre").is_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator("pre").bounding_box()["height"] > 10
    assert page.locator("nav").is_hidden()
    assert page.locator("thead button span").first.is_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == 700
    cut = "[...document.querySelectorAll('.scroll')].filter((b) => b.scrollWidth > b.clientWidth + 1).length"
    assert page.evaluate(cut) == 0
    page.screenshot(path=tmp_path / "print.png", full_page=True)
    page.emulate_media(media="screen")
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert 2 <= paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") <= 20
    assert tab.said == []


def test_markup_in_names_stays_text_and_the_policy_holds(
    browser: Any, new_ledger: Callable[..., Any]
) -> None:
    nasty = "<img src=http://127.0.0.1:9/x onerror=alert(1)></script><script>document.title='gone'</script>"
    writer = new_ledger()
    write_paper_study(writer, seeds_done=0, searches=0, study=nasty, question=nasty, file=f"</pre>{nasty}")
    write_report(make_report(writer.study), writer.study / "report")
    tab = Tab(browser, 1280)
    page = tab.goto(writer.study / "report" / "report.html")
    assert page.title() == f"{nasty}: report"
    assert page.locator("h1").inner_text() == nasty
    assert page.locator("img").count() == 0
    assert tab.said == []
    assert len(tab.requests) == 1
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    page.wait_for_timeout(300)
    assert any("Content Security Policy" in line for line in tab.said)
