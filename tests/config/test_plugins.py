"""Plug-ins: loaded when named and not otherwise, usable in studies, and part of what identifies a trial."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sarx.config import compose as composing
from sarx.config import plugins
from sarx.config.errors import UserError
from sarx.config.schema import as_dict
from sarx.config.schema.regularizers import REGULARIZERS
from sarx.study.design import make_arms
from sarx.study.identity import changed_files, training_code, trial_id
from sarx.study.load import load_study

ROOT = Path(__file__).parents[2]
SECTION = (
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## A regularizer: one file and one line")[1]
)
FILE, LINE = re.findall(r"```python\n(.*?)```", SECTION.split("\n## ")[0], flags=re.DOTALL)

PARTS = f"""
from sarx.config.schema.regularizers import REGULARIZERS, declare, option

REGULARIZERS |= {{
    {LINE.replace("sarx.regularizers.shrink", "my_lab.shrink")}
}}
"""

STUDY = """\
# Does shrinking help?   just a test
study: small
base: [data=digit_scenes, model=fcn_test_efficientnet, training=quick]
ablation:
  reference: plain
  arms:
    plain: {regularizer: none}
    shrink: {regularizer: shrink}
search:
  parameters:
    optim.lr: {low: 0.001, high: 0.1, log: true}
    regularizer.pull_weight: {low: 0.01, high: 1.0, log: true}
  trials_per_arm: 4
"""

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return a function that writes a module of a lab; what plug-ins changed is undone afterwards."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(plugins, "_loaded", [])
    known, modules = dict(REGULARIZERS), set(sys.modules)

    def write_module(name: str, text: str) -> Path:
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return path

    yield write_module
    REGULARIZERS.clear()
    REGULARIZERS.update(known)
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]
    composing._defaults.cache_clear()


@pytest.fixture
def lab(write: Write) -> Write:
    """Write the regularizer of CONTRIBUTING.md as a lab's package, its line in a module of its own."""
    write("my_lab.__init__", "")
    write("my_lab.shrink", FILE + "\nfrom my_lab import tools\n")
    write("my_lab.tools", "SCALE = 1.0\n")
    write("my_lab.other", "SCALE = 1.0\n")
    write("my_lab.parts", PARTS)
    return write


def test_a_regularizer_of_a_plug_in_is_planned_like_any_other(lab: Write, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    with pytest.raises(UserError, match=r"s\.yaml:8:14: .*no regularizer called 'shrink'"):
        make_arms(*load_study(tmp_path / "s.yaml"))
    plugins.load(["my_lab.parts"])
    plain, shrink = make_arms(*load_study(tmp_path / "s.yaml"))
    assert as_dict(shrink.config)["regularizer"] == {"name": "shrink", "pull_weight": 0.1}
    assert [parameter.key for parameter in shrink.space] == ["optim.lr", "regularizer.pull_weight"]
    assert [parameter.key for parameter in plain.space] == ["optim.lr"]
    with pytest.raises(UserError, match=r"pull_weight\.low: -1\.0 is outside the allowed range \[0, 1000\]"):
        make_arms(
            *load_study(
                tmp_path / "s.yaml", ["search.parameters={regularizer.pull_weight: {low: -1, high: 1}}"]
            )
        )
    assert "my_lab.shrink" not in sys.modules  # planning leaves torch alone


def test_it_is_built(lab: Write) -> None:
    from sarx.regularizers import build_regularizer

    plugins.load(["my_lab.parts"])
    config = composing.compose(["regularizer=shrink"])
    built = build_regularizer(config.regularizer, num_classes=3, feature_dim=4, total_steps=2)
    assert type(built).__name__ == "Shrink"


def test_it_is_loaded_once_and_in_order(lab: Write) -> None:
    lab("my_second", "import my_lab.parts")
    assert plugins.loaded() == ()
    plugins.load(["my_lab.parts", "my_second", "my_lab.parts"])
    plugins.load(["my_second"])
    assert plugins.loaded() == ("my_lab.parts", "my_second")


def test_its_code_identifies_trials(lab: Write) -> None:
    before = training_code()
    plugins.load(["my_lab.parts"])
    code = training_code()
    assert changed_files(before.files, code.files) == ["plugin/my_lab.parts"]
    ids = {
        trial_id(composing.compose([]), data_fingerprint="d", code=digest)
        for digest in (before.digest, code.digest)
    }
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("module", "text", "counts"),
    [
        ("my_lab.parts", PARTS.replace("1000.0", "999.0"), True),
        ("my_lab.parts", f"# a comment\n{PARTS}", False),
        ("my_lab.shrink", FILE.replace("0.1", "0.2") + "\nfrom my_lab import tools\n", True),
        ("my_lab.tools", "SCALE = 2.0\n", True),
        ("my_lab.__init__", "ANY = 1\n", True),
        ("my_lab.other", "SCALE = 2.0\n", False),
    ],
)
def test_what_of_it_counts(lab: Write, module: str, text: str, counts: bool) -> None:
    from sarx.study.identity import plugin_digest

    plugins.load(["my_lab.parts"])
    before = plugin_digest("my_lab.parts")
    lab(module, text)
    assert (plugin_digest("my_lab.parts") != before) is counts


def test_its_sources_are_found_without_importing_them(lab: Write) -> None:
    plugins.load(["my_lab.parts"])
    found = plugins.sources("my_lab.parts")
    assert list(found) == ["my_lab/__init__.py", "my_lab/parts.py", "my_lab/shrink.py", "my_lab/tools.py"]
    from sarx.regularizers import build_regularizer

    config = composing.compose(["regularizer=shrink"])
    build_regularizer(config.regularizer, num_classes=3, feature_dim=4, total_steps=2)
    assert plugins.sources("my_lab.parts") == found


def test_relative_imports_packages_and_neighbours_are_its_own(write: Write) -> None:
    write("my_pack.__init__", "from . import a\nfrom .deep.b import c\nimport json, my_single, torch, sarx\n")
    write("my_pack.a", "")
    write("my_pack.unused", "")
    write("my_pack.deep.b", "from ..a import x\nc = 1\n")
    write("my_single", "from my_third import y\n")
    write("my_third", "y = 1\n")
    write("my_fourth", "z = 1\n")
    write("my_pack.a", "x = 1\n")
    plugins.load(["my_pack"])
    assert list(plugins.sources("my_pack")) == [
        "my_pack/__init__.py",
        "my_pack/a.py",
        "my_pack/deep/b.py",
        "my_pack/unused.py",
        "my_single.py",
        "my_third.py",
    ]


def test_of_an_installed_plug_in_only_its_own_package_counts(write: Write, tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    sys.path.insert(0, str(site))
    write("site-packages.my_pack", "import my_neighbour\n")
    write("site-packages.my_neighbour", "")
    plugins.load(["my_pack"])
    assert list(plugins.sources("my_pack")) == ["my_pack.py"]


def test_an_entry_point_is_loaded_only_when_named(lab: Write, tmp_path: Path) -> None:
    info = tmp_path / "my_lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sarx.plugins]\nlab = my_lab.parts\n")
    importlib.invalidate_caches()
    assert [entry.name for entry in importlib.metadata.entry_points(group="sarx.plugins")] == ["lab"]
    composing.compose([])
    assert "my_lab.parts" not in sys.modules
    with pytest.raises(UserError, match=r"--plugin: there is no module 'labb'.*did you mean 'lab'\?"):
        plugins.load(["labb"])
    plugins.load(["lab", "my_lab.parts"])
    assert plugins.loaded() == ("my_lab.parts",)
    assert "shrink" in REGULARIZERS


NOT_A_MODULE = "is not a module such as my_lab.sar_parts; for a file of this folder write "
INCOMPLETE = "import sarx.config.schema.regularizers as r\nr.declare('a')"
THIEF = "from sarx.config.schema.regularizers import REGULARIZERS as R\nR['sar'] = R['none']"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("my_gone", None, "there is no module 'my_gone'; start from the folder that holds it"),
        ("my_gone.parts", None, "there is no module 'my_gone';"),
        ("my_parts.py", "", f"'my_parts.py' {NOT_A_MODULE}my_parts"),
        ("my/parts.py", None, f"'my/parts.py' {NOT_A_MODULE}my.parts"),
        ("a b", None, "'a b' is not a module such as my_lab.sar_parts"),
        ("math", None, "math has no Python source"),
        ("my_x", "import my_dep", "my_x cannot be imported: ModuleNotFoundError: No module named 'my_dep'"),
        ("my_x", "def f(:", "my_x cannot be imported: SyntaxError: invalid syntax (my_x.py, line 1)"),
        ("my_x", "\n1 / 0", "my_x cannot be imported: ZeroDivisionError: division by zero ({tmp}/my_x.py:2)"),
        ("my_x", INCOMPLETE, "1 required positional argument: 'implementation' ({tmp}/my_x.py:2)"),
        ("my_x", THIEF, "my_x replaces regularizer=sar; give the part a name of its own"),
        ("my_x", "A = 'my_broken:B'", "{tmp}/my_broken.py:2: is not valid Python"),
    ],
)
def test_mistakes(write: Write, tmp_path: Path, name: str, text: str | None, message: str) -> None:
    write("my_broken", "\n(")
    if text is not None:
        write(name.removesuffix(".py"), text)
    with pytest.raises(UserError) as caught:
        plugins.load([name])
    assert message.replace("{tmp}", str(tmp_path)) in str(caught.value)
    assert plugins.loaded() == ()


def test_a_worker_that_loads_the_same_names_has_the_same_digest(lab: Write, tmp_path: Path) -> None:
    plugins.load(["my_lab.parts"])
    code = (
        "import sys, json; from sarx.config import plugins; from sarx.study.identity import training_code; "
        "plugins.load(json.load(sys.stdin)); print(training_code().digest)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(plugins.loaded()),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )
    assert done.stdout.strip() == training_code().digest
