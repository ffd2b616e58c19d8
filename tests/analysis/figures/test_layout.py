"""No text of any figure overlaps another or leaves the figure, however many arms and levels there are."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from analysis.figures import FIGURES
from analysis.figures.style import MOST_HEIGHT, MOST_WIDTH, file_names, listing, pages, short, styled

Begin = Callable[..., Any]
KINDS = (
    *("forest", "seeds", "class_gain", "confusion", "learning_curves"),
    *("search_history", "parallel_coordinates", "slices"),
)
SOME = ("sar", "no_pull", "a-very-long-name-of-an-arm-that-never-ends")
ARMS = (*SOME, *(f"arm_with_number_{place}" for place in range(11)))
LEVELS = tuple(f"model=fcn_lcnet_0{place},data.imbalance={place}" for place in range(6))


def check(written: Any, name: str, problems: Callable[..., list[str]]) -> None:
    """Draw one kind of figure and look at its texts and its size."""
    with styled():
        drawings = FIGURES[name](written.sources)
    assert drawings
    for drawing in drawings[:2] + drawings[-1:]:
        assert problems(drawing.figure) == []
        width, height = drawing.figure.get_size_inches()
        assert width <= MOST_WIDTH
        assert height <= MOST_HEIGHT


@pytest.mark.parametrize("name", KINDS)
def test_two_arms_at_one_level(study: Begin, problems: Any, name: str) -> None:
    check(study(arms=ARMS[:2], levels=("",), seeds=3), name, problems)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "confusion"])  # it shows 4 at most
def test_fourteen_arms_at_one_level(study: Begin, problems: Any, name: str) -> None:
    check(study(arms=ARMS, levels=("",), seeds=2), name, problems)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_fourteen_arms_at_six_levels(study: Begin, problems: Any, name: str) -> None:
    check(study(arms=ARMS, levels=LEVELS, seeds=2), name, problems)


@pytest.mark.parametrize("classes", [2, *(pytest.param(many, marks=pytest.mark.slow) for many in (19, 150))])
@pytest.mark.parametrize("name", ["class_gain", "confusion"])
def test_any_number_of_classes(study: Begin, problems: Any, name: str, classes: int) -> None:
    names = tuple(f"class with a name {place}" for place in range(classes))
    check(study(arms=ARMS[:3], levels=("",), seeds=2, classes=names), name, problems)


def test_pages_are_of_about_equal_length() -> None:
    assert [len(page) for page in pages(range(14), 12)] == [7, 7]
    assert pages([], 3) == []
    assert [len(page) for page in pages(range(25), 12)] == [9, 9, 7]


def test_names_of_files_are_plain_and_differ() -> None:
    names = file_names("seeds", ["a=1", "A/1", "$$", "x" * 90, "x" * 91])
    assert list(names.values())[:3] == ["seeds_a_1", "seeds_a_1_2", "seeds_3"]
    assert len(set(names.values())) == 5
    assert file_names("seeds", ["any"]) == {"any": "seeds"}


def test_text_is_cut_and_has_only_letters_of_the_font() -> None:
    assert short("a\n b\tc") == "a b c"
    assert short("x" * 30, 10) == "xxxxxxx..."
    assert short("\u4e2d\x00$") == "??$"
    assert listing(["a", "b", "c"], most=2) == "a; b; and 1 more"


def test_a_users_matplotlibrc_changes_nothing() -> None:
    import matplotlib as mpl

    with mpl.rc_context({"text.usetex": True, "axes.grid": True, "font.size": 30}), styled():
        assert (mpl.rcParams["text.usetex"], mpl.rcParams["axes.grid"]) == (False, False)
        assert math.isclose(mpl.rcParams["font.size"], 8)
