"""What the README shows works as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path("README.md").read_text(encoding="utf-8")
ABSENT = (
    "ray optuna hydra omegaconf timm polars sklearn torchvision yaml segmentation_models_pytorch "
    "torchmetrics tensorboard scipy matplotlib rich"
)
ONLY_TORCH = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT.split()!r}))\n"


def test_the_example_trains_with_torch_alone():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    ending = (
        "\nassert sar.first_open_step.item() >= 0, 'the gate never opened'"
        "\nassert torch.isfinite(loss).item() and sar.semantic_anchors.norm() > 0\nprint(loss.item())"
    )
    code = ONLY_TORCH + "import torch\ntorch.manual_seed(0)\n" + example + ending
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    setup, loop = example.split("for _ in")
    assert len(loop.strip().splitlines()) == 7
    assert len(setup.strip().splitlines()) == 7


def test_every_recipe_that_the_texts_mention_exists():
    recipes = set(re.findall(r"^([a-z][\w-]*)[^:=\n]*:(?!=)", Path("Justfile").read_text(), re.M))
    for text in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "clusters/README.md",
        "clusters/local/README.md",
    ):
        named = set(re.findall(r"(?:\b|/)just ([a-z][\w-]*)", Path(text).read_text(encoding="utf-8")))
        assert named <= recipes, (text, named - recipes)


def test_every_study_says_its_question_command_and_cost():
    for path in sorted(Path("search_spaces").glob("*.yaml")):
        opening = path.read_text(encoding="utf-8").split("study:")[0]
        assert opening.startswith("# "), path
        assert f"python -m sarx.tune {path}" in opening, path
        assert "cost:" in opening, path


def test_nothing_is_left_to_fill_in():
    texts = [Path("README.md"), Path("CONTRIBUTING.md"), *sorted(Path("search_spaces").glob("*.yaml"))]
    for path in texts:
        assert not re.search(r"PLACEHOLDER|\b(DEMO)?COST\b", path.read_text(encoding="utf-8")), path
