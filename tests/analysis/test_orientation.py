"""Arms that stay below what others reach with the same settings."""

from collections.abc import Callable
from typing import Any

from tests.analysis.test_report import simple_study

Begin = Callable[..., Any]


def test_an_arm_far_below_what_others_reach_is_warned_of(new_ledger: Begin, metrics_of: Any) -> None:
    scores = {"sar": [0.78, 0.79, 0.80], "cross_entropy": [0.76, 0.77, 0.78]}

    def warnings(study: str, name: str, value: float) -> list[str]:
        report = {"primary": "test/miou", "smallest_effect": 0.02, "orientation": {name: value}}
        made = simple_study(new_ledger(study), metrics_of, scores, report=report)
        return [text for text in made.missing if "short of" in text]

    assert warnings("a", "cross_entropy", 0.779) == []
    (text,) = warnings("b", "cross_entropy", 0.7993)
    assert "cross_entropy has test/miou .7700, more than a point short of the .7993" in text
    assert warnings("c", "sar", 0.79) == []


def test_the_caption_says_that_confirm_trials_train_on_what_search_held_out(
    new_ledger: Begin, metrics_of: Any
) -> None:
    scores = {"sar": [0.78, 0.79], "cross_entropy": [0.76, 0.77]}
    said = "val is held out of the training images; confirm trials train on all of them."
    plain = simple_study(new_ledger("plain"), metrics_of, scores)
    held_out = simple_study(new_ledger("held"), metrics_of, scores, held_out=True)
    assert said not in " ".join(plain.caption)
    assert said in " ".join(held_out.caption)
