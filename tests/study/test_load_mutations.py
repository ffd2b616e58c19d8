"""A damaged study file gives a study with arms or one UserError, never another exception."""

import random
import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sarx.config.errors import UserError
from sarx.models.backbone_names import backbone_names
from sarx.study.design import check_backbones, make_arms
from sarx.study.load import load_study
from sarx.study.plan import describe_plan

DEMO = (Path(__file__).parents[2] / "search_spaces" / "demo.yaml").read_text()
TOKEN = re.compile(r"[\w./+-]+|[^\s\w]|\n *")
VALUES = [
    "null",
    "~",
    "true",
    "no",
    "0",
    "-1",
    "1.5",
    "1e-3",
    "1e999",
    ".nan",
    ".inf",
    "-.inf",
    "0x1F",
    "0o7",
    "0b_",
    "1_000",
    "12:30",
    "2020-01-01",
    "2020-99-99",
    "''",
    "'1'",
    "[]",
    "{}",
    "[1]",
    "{a:1}",
    "[[1,2],[3]]",
    "&a",
    "*a",
    "!!int",
    "!!bool",
    "!!set",
    "!x",
    "${x}",
    "_target_",
    "<<",
    "=",
    "?",
    "|",
    ">",
    "-",
    ":",
    "#",
    "%",
    "@",
    "`",
    "'",
    '"',
    "\\",
    "\t",
    "\x00",
    "\x7f",
    "é",
    "sar",
    "none",
    "cross_entropy",
    "regularizer",
    "regularizer.gate",
    "optim.lr",
    "low",
    "high",
    "log",
    "step",
    "choices",
    "seed",
    "role",
    "question",
    "file",
    "search:",
    "ablation:",
    "arms:",
    "factors:",
    "{model:[x]}",
    "seeds:",
    "99999999999999999999999",
]


def damaged(seed: int) -> str:
    """Return the demo study after one to four edits of lines and tokens."""
    rng = random.Random(seed)
    text = DEMO
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines = text.splitlines(keepends=True) or [""]
        at = rng.randrange(len(lines))
        edit = rng.randrange(7)
        if edit == 0:
            del lines[at]
        elif edit == 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        elif edit == 2:
            lines[at] = " " * rng.randrange(4) + lines[at].lstrip()
        else:
            tokens = TOKEN.findall(lines[at]) or [""]
            spot = rng.randrange(len(tokens))
            other = rng.choice(TOKEN.findall(text) or [""])
            tokens[spot] = {3: "", 4: tokens[spot] * 2, 5: other}.get(edit, rng.choice(VALUES))
            lines[at] = rng.choice(("", " ")).join(tokens)
        text = "".join(lines)
    return text


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 2**32))
def test_a_study_or_a_user_error(tmp_path, seed):
    file = tmp_path / "s.yaml"
    file.write_text(damaged(seed))
    try:
        study, source = load_study(file)
        arms = make_arms(study, source)
        check_backbones(arms, source, backbone_names())
    except UserError as error:
        said = error
    else:
        assert arms
        assert describe_plan(study, arms)
        return
    assert str(said).startswith(str(file))
    assert "\n" not in said.message


def test_the_mutations_do_both(tmp_path):
    """The test above is worth something only if it reaches both outcomes."""
    outcomes = set()
    for seed in range(40):
        file = tmp_path / "s.yaml"
        file.write_text(damaged(seed))
        try:
            make_arms(*load_study(file))
            outcomes.add("study")
        except UserError:
            outcomes.add("error")
    assert outcomes == {"study", "error"}
