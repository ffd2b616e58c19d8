"""The entry of a study: quick help, one line for a mistake, a dry run without torch and Ray."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sarx.config import plugins
from sarx.config.schema.regularizers import REGULARIZERS
from sarx.study.design import make_arms
from sarx.study.identity import training_code
from sarx.study.load import load_study
from sarx.training.smoke import variants
from sarx.tune import main

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "search_spaces" / "demo.yaml"

RUN = """
import runpy, sys
sys.argv = ["sarx.tune", *{arguments!r}]
{before}
try:
    runpy.run_module("sarx.tune", run_name="__main__", alter_sys=True)
except SystemExit as ended:
    code = ended.code or 0
heavy = {{"torch", "ray", "torchvision", "timm", "polars"}} & set(sys.modules)
print("heavy:", sorted(heavy), "code:", code, file=sys.__stdout__)
"""

CANNED = """
import json, subprocess
from types import SimpleNamespace
def run(command, *, input, **_):
    answer = {key: [1.0, 0.01, 0.5] for key in json.loads(input)["configs"]}
    return SimpleNamespace(returncode=0, stderr="", stdout=json.dumps(answer))
subprocess.run = run
"""


def entry(*arguments, before=""):
    """Run the entry in a process of its own; return (its last line, everything before, stderr)."""
    code = RUN.format(arguments=arguments, before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100)
    said, _, last = done.stdout.rpartition("heavy:")
    return last.strip(), said, done.stderr


def test_help_imports_nothing_heavy():
    last, said, errors = entry("--help")
    assert last == "[] code: 0"
    assert "--dry-run" in said
    assert errors == ""


def test_a_mistake_is_one_line_and_code_2(tmp_path):
    file = tmp_path / "s.yaml"
    lines = DEMO.read_text().replace("optim.lr:", "optim.lrr:").splitlines(keepends=True)
    file.write_text("".join(lines))
    (number,) = [number for number, line in enumerate(lines, 1) if "optim.lrr:" in line]
    last, said, errors = entry(str(file))
    assert last == "[] code: 2"
    assert said == ""
    (line,) = errors.splitlines()
    assert line.startswith(
        f"error: {file}:{number}:5: search.parameters.optim.lrr: unknown key; did you mean 'optim.lr'?"
    )


def test_a_dry_run_imports_neither_torch_nor_ray(tmp_path):
    last, said, errors = entry(str(DEMO), "--dry-run", "--storage", str(tmp_path / "results"), before=CANNED)
    assert last == "[] code: 0", errors
    for part in ("results in", "search", "confirm", "sar", "cross_entropy", "trial-hours", "80 % power"):
        assert part in said
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.yaml"], "error: gone.yaml: there is no such file"),
        ([str(DEMO), "--set", "confirm.sed=2"], "--set: confirm.sed: unknown key; did you mean 'seeds'?"),
        ([str(DEMO), "--set", "confirm.seeds=0"], "--set: confirm.seeds: 0 is outside"),
        ([str(DEMO), "--storage", "~nobody-here/x", "--dry-run"], "error: storage: ~nobody-here/x is not"),
        ([str(DEMO), "--set", "resources.cpus_per_worker=1000", "--dry-run"], "one trial needs 1000 CPUs"),
        ([str(DEMO), "--set", "resources.cpus_per_worker=1000"], "one trial needs 1000 CPUs"),
    ],
)
def test_mistakes(arguments, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_newline_in_a_key_does_not_break_the_line(capsys, tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text('"a\\nb": 1\n')
    assert main([str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_settings_may_be_given_together_and_apart(capsys, monkeypatch, tmp_path):
    """Both settings count, whichever way they are written, and reach the process that times the arms."""
    asked = []

    def run(command, *, input, **_):
        asked.append(json.loads(input)["configs"])
        timings = {key: [1.0, 0.01, 0.5] for key in asked[-1]}
        return SimpleNamespace(returncode=0, stderr="", stdout=json.dumps(timings))

    monkeypatch.setattr(subprocess, "run", run)
    common = [str(DEMO), "--dry-run", "--storage", str(tmp_path)]
    printed = []
    for settings in (
        ["--set", "confirm.seeds=7", "base=[training.steps=100]"],
        ["--set", "confirm.seeds=7", "--set", "base=[training.steps=100]"],
    ):
        assert main([*common, *settings]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "on 7 fresh seeds" in printed[0]
    assert {values["training"]["steps"] for values in asked[0].values()} == {100}


def test_an_arm_that_cannot_be_built_is_named(capsys, monkeypatch, tmp_path):
    def run(command, *, input, **_):
        answer = {key: [1.0, 0.01, 0.5] for key in json.loads(input)["configs"]}
        answer["sar"] = {"error": "no such"}
        return SimpleNamespace(returncode=0, stderr="", stdout=json.dumps(answer))

    monkeypatch.setattr(subprocess, "run", run)
    assert main([str(DEMO), "--dry-run", "--storage", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: arm sar: no such\n"


def test_help_is_quick():
    """Importing the entry takes a small part of the 0.5 s that help may take; process time, not wall time."""
    code = (
        "import time; started = time.process_time(); import sarx.tune; sarx.tune.parser().format_help(); "
        "print(time.process_time() - started)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert float(done.stdout) < 0.3


def test_only_some_arms_and_one_phase(capsys, monkeypatch, tmp_path):
    asked = []

    def start(study, arms, root, options, only_arms=None):
        asked.append((only_arms, options.phase))
        return 0

    monkeypatch.setattr("sarx.cluster.launch.start", start)
    common = [str(DEMO), "--storage", str(tmp_path)]
    assert main(common) == 0
    assert main([*common, "--arms", "sar", "--phase", "search"]) == 0
    assert main([*common, "--arms", "sar, cross_entropy", "--phase", "confirm"]) == 0
    assert asked == [
        (None, None),
        (frozenset({"sar"}), "search"),
        (frozenset({"sar", "cross_entropy"}), "confirm"),
    ]
    for given, said in (
        ("saar", "'saar'; did you mean 'sar'?"),
        ("sar,", "''; known: cross_entropy, sar"),
        ("", "''; known: cross_entropy, sar"),
    ):
        capsys.readouterr()
        assert main([*common, "--arms", given]) == 2
        assert capsys.readouterr().err == f"error: --arms: no arm is called {said}\n"
    with pytest.raises(SystemExit, match="2"):
        main([*common, "--phase", "finalist"])


PLUGIN = """
import os
from sarx.config.schema.regularizers import REGULARIZERS, declare

REGULARIZERS["my_broken"] = declare("my_broken", "my_smoke_parts:Broken")
REGULARIZERS["my_deadly"] = declare("my_deadly", "my_smoke_parts:Deadly")

def Broken(num_classes, feature_dim):
    import torch
    class Fails(torch.nn.Module):
        def forward(self, features, labels, classifier):
            raise ValueError("it\\nbroke")
    return Fails()

def Deadly(num_classes, feature_dim):
    os.kill(os.getpid(), 9)
"""

SMOKE = """\
# Does it work?
study: smoke
base: [data=digit_scenes, data.num_train=32, data.num_eval=50, model=fcn_test_efficientnet,
       training.batch_size=4]
ablation:
  reference: plain
  arms:
    deadly: {regularizer: my_deadly}
    broken: {regularizer: my_broken}
    plain: {regularizer: none}
search:
  parameters:
    optim.lr: {low: 0.001, high: 0.1, log: true}
  trials_per_arm: 4
"""


@pytest.fixture
def smoke_study(tmp_path, monkeypatch):
    """Write a study whose plug-in has a part that breaks and one that kills its process."""
    (tmp_path / "my_smoke_parts.py").write_text(PLUGIN)
    (tmp_path / "smoke.yaml").write_text(SMOKE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_loaded", [])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield
    for name in ("my_broken", "my_deadly"):
        REGULARIZERS.pop(name, None)
    sys.modules.pop("my_smoke_parts", None)


def test_a_smoke_test_names_what_fails_and_tries_the_rest(smoke_study, tmp_path):
    code = "import sys; from sarx.tune import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["smoke.yaml", "--smoke", "--plugin", "my_smoke_parts", "--storage", "here"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=110, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    said = done.stdout[done.stdout.index("smoke test: 3 configurations, 2 steps and 8 images each") :]
    deadly, broken, plain, end = (" ".join(line.split()) for line in said.splitlines()[1:])
    assert deadly == "deadly FAILED the process was killed (signal 9); out of memory?"
    assert broken == f"broken FAILED ValueError: it broke ({tmp_path / 'my_smoke_parts.py'}:12)"
    assert plain.startswith("plain ok ")
    assert end == "2 of 3 failed"
    assert not (tmp_path / "here").exists()


def test_a_smoke_test_tries_every_backbone_that_is_searched(smoke_study, tmp_path):
    plugins.load(["my_smoke_parts"])
    choices = "    model.backbone: {choices: [test_efficientnet, test_resnet]}\n"
    (tmp_path / "smoke.yaml").write_text(SMOKE.replace("  trials_per_arm", f"{choices}  trials_per_arm"))
    found = dict(variants(make_arms(*load_study(tmp_path / "smoke.yaml"))))
    assert list(found) == [
        f"{arm}{more}"
        for arm in ("deadly", "broken", "plain")
        for more in ("", " model.backbone=test_resnet")
    ]
    assert {config.training.epochs for config in found.values()} == {1}
    assert found["plain model.backbone=test_resnet"].model.backbone == "test_resnet"


def test_a_plug_in_part_is_planned(smoke_study, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sarx.cluster.launch.start", lambda *_: 0)
    common = ["smoke.yaml", "--storage", str(tmp_path / "here")]
    assert main(common) == 2
    assert "no regularizer called 'my_deadly'" in capsys.readouterr().err
    assert main([*common, "--plugin", "my_smoke_parts"]) == 0
    assert "deadly " in capsys.readouterr().out
    assert main([*common, "--plugin", "my_smoke_part"]) == 2
    assert capsys.readouterr().err.startswith("error: --plugin: there is no module 'my_smoke_part';")


def test_what_only_looks_at_a_trial_is_no_part_of_its_identity():
    files = training_code().files
    assert "training/loop.py" in files
    assert not {"training/smoke.py", "training/single.py", "training/timing.py"} & set(files)
