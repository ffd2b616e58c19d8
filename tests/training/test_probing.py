"""Probing: which images are looked at, and the real entry on a study whose trials were trained here."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confirm_study import run_confirm_study
from PIL import Image

from analysis.arrays import read_images, read_predictions
from analysis.consistency import read_geometry
from analysis.figures.class_dependency import class_dependency
from analysis.figures.embedding import embedding, principal_plane
from analysis.figures.qualitative import qualitative
from analysis.report import make_report
from sarx.config.compose import compose
from sarx.data import describe, load_split
from sarx.evaluate import main as evaluate
from sarx.probe import main
from sarx.study.identity import training_code
from sarx.training.probed_images import CANDIDATES, choose, chosen_images, content_key

STUDY = """# Are they alike?
study: tiny
base: [data=digit_scenes, model=fcn_test_efficientnet, data.num_train=32, training.steps=4,
       training.eval_every=2, training.batch_size=4]
objective: {metric: val/miou, mode: max}
report: {primary: test/miou}
ablation:
  reference: cross_entropy
  arms: {cross_entropy: {regularizer: none}, sar: {regularizer: sar, regularizer.gate: always}}
search: {scope: none}
confirm: {seeds: 2}
"""
CLASSES = (
    STUDY.replace("study: tiny", "study: classes")
    .replace("data=digit_scenes, model=fcn_test_efficientnet", "data=digits_lt, model=pool_test_efficientnet")
    .replace("val/miou", "val/mean_accuracy")
    .replace("test/miou", "test/mean_accuracy")
    .replace("seeds: 2", "seeds: 1")
)
made: dict[str, Path] = {}


@pytest.fixture
def storage(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a storage with the study ``tiny``; sar on seed 1 is still to come. Trained once."""
    if "tiny" not in made:
        root = tmp_path_factory.mktemp("probing")
        (root / "tiny.yaml").write_text(STUDY)
        run_confirm_study(root / "tiny.yaml", root / "results", skip=frozenset({("sar", 1)}))
        made["tiny"] = root / "results"
    shutil.copytree(made["tiny"], tmp_path / "results")
    return tmp_path / "results"


def trials(storage: Path, study: str = "tiny") -> dict[tuple[str, int], str]:
    frame = make_report(storage / study).sources.trials.filter(status="finished")
    return {(arm, index): name for arm, index, name in frame.select("arm", "index", "trial_id").iter_rows()}


def probe(storage: Path, *arguments: str) -> int:
    return main([*arguments, "--storage", str(storage)])


def test_images_are_chosen_for_rare_classes_by_hand() -> None:
    # Classes 0 in all five, 1 in two, 2 in one, 3 in none: weights 1/5, 1/2, 1.
    present = np.zeros((5, 4), dtype=bool)
    present[:, 0] = True
    present[[1, 3], 1] = True
    present[4, 2] = True
    assert choose(present, 1).tolist() == [4]  # 1.2
    assert choose(present, 2).tolist() == [1, 4]  # then .5, the first of two
    assert choose(present, 3).tolist() == [1, 3, 4]  # nothing is new: .7 again, of image 3
    assert choose(present, 9).tolist() == [0, 1, 2, 3, 4]
    assert choose(np.zeros((3, 2), dtype=bool), 2).tolist() == [0, 1]


def test_the_choice_shows_every_class_and_depends_on_labels_alone() -> None:
    config = compose({"data.num_train": "32"})
    data, split = describe(config.data, 0), load_split(config.data, 0, "test")
    chosen = chosen_images(split, data, 6)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 6
    assert set(np.unique(np.asarray(split.labels)[chosen])) == set(range(11))
    assert chosen == chosen_images(load_split(config.data, 5, "test"), describe(config.data, 5), 6)
    assert max(chosen) < CANDIDATES


def test_the_key_of_images_sees_names_types_shapes_and_contents() -> None:
    base = {"a": np.arange(4), "b": np.zeros(2)}
    others: list[Any] = [
        {"a": np.arange(4)[::-1].copy(), "b": np.zeros(2)},
        {"a": np.arange(4).reshape(2, 2), "b": np.zeros(2)},
        {"a": np.arange(4).astype(np.int32), "b": np.zeros(2)},
        {"a": np.arange(4), "c": np.zeros(2)},
    ]
    assert len({content_key(arrays) for arrays in [base, *others]}) == 5
    assert content_key(dict(reversed(base.items()))) == content_key(base)


def test_predictions_are_those_of_evaluate(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe(storage, "tiny", "--images", "3") == 0
    out = capsys.readouterr().out
    assert out.startswith("3 finished confirm trials of tiny, 3 report images\n")
    assert "(3 new)" in out
    assert out.endswith(f"next         python -m analysis --storage {storage} tiny\n")
    names = trials(storage)
    assert [*names] == [("cross_entropy", 0), ("cross_entropy", 1), ("sar", 0)]
    images = {str((read_predictions(storage / "tiny", name) or {})["images"]) for name in names.values()}
    assert len(images) == len([*(storage / "tiny" / "probe").glob("images-*.npz")]) == 1
    shown = read_images(storage / "tiny", images.pop())
    assert shown is not None
    split = load_split(compose({}).data, 0, "test")
    for name in (names["sar", 0], names["cross_entropy", 1]):
        found = read_predictions(storage / "tiny", name)
        assert found is not None
        attempt = storage / "tiny" / "trials" / name / "attempt-1"
        assert evaluate([str(next(attempt.glob("weights-*.pt"))), "--labels"]) == 0
        for index in shown["indices"].tolist():
            label_image = attempt.parent / "evaluation" / "test-whole" / "labels" / f"{index}.png"
            assert np.array_equal(np.asarray(Image.open(label_image)), found[f"prediction_{index}"])
            assert np.array_equal(split.labels[index], shown[f"label_{index}"])
            assert np.array_equal(split.images[index][0], shown[f"image_{index}"][..., 0])


def test_what_is_there_is_kept_and_what_is_gone_is_named(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = trials(storage)
    folder = storage / "tiny"
    assert probe(storage, "tiny", "--arms", "sar", "--images", "2") == 0
    assert [path.name for path in (folder / "probe").iterdir() if path.is_dir()] == [names["sar", 0]]
    file = folder / "probe" / names["sar", 0] / "predictions.npz"
    before = file.stat().st_mtime_ns
    for weights in (folder / "trials" / names["cross_entropy", 0]).glob("*/weights-*.pt"):
        weights.unlink()
    broken = next((folder / "trials" / names["cross_entropy", 1]).glob("*/weights-*.pt"))
    broken.write_bytes(broken.read_bytes()[:-9])
    capsys.readouterr()
    assert probe(storage, "tiny", "--images", "2") == 0
    out = capsys.readouterr().out
    assert f"{names['cross_entropy', 0]}  left out: its weights are gone" in out
    assert f"{names['cross_entropy', 1]}  left out: {broken}: is damaged" in out
    assert "(0 new, 1 were there, 2 left out (see above))" in out
    assert file.stat().st_mtime_ns == before
    assert probe(storage, "tiny", "--arms", "sar", "--images", "3") == 0
    assert file.stat().st_mtime_ns != before
    assert not [*(folder / "probe").rglob(".*")]


def test_the_figures_show_what_was_probed(storage: Path) -> None:
    assert probe(storage, "tiny", "--images", "2") == 0
    sources = make_report(storage / "tiny").sources
    (pictures,) = qualitative(sources)
    titles = [panel.get_title() for panel in pictures.figure.axes[:4]]
    assert titles == ["image", "label", "cross_entropy", "sar"]
    (points,) = embedding(sources)
    geometry = read_geometry(storage / "tiny", trials(storage)["sar", 0])
    assert geometry is not None
    plane = principal_plane(geometry["features"])
    assert plane is not None
    panel = points.figure.axes[1]
    assert panel.get_title() == "sar"
    marks = {len(one.get_offsets()): np.asarray(one.get_offsets()) for one in panel.collections}
    assert len(marks[len(geometry["features"])]) == len(geometry["labels"])
    anchors = plane.place(geometry["semantic_anchors"])
    assert any(
        np.allclose(one.get_offsets(), anchors) for one in panel.collections if len(one.get_offsets()) == 11
    )
    (matrices,) = class_dependency(sources)
    assert "sar minus cross_entropy: not yet" in matrices.caption


def test_classes_of_images_are_those_of_evaluate(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(CLASSES)
    run_confirm_study(tmp_path / "classes.yaml", tmp_path / "results", skip=frozenset({("sar", 0)}))
    assert probe(tmp_path / "results", "classes", "--images", "4", "--seeds", "1") == 0
    name = trials(tmp_path / "results", "classes")["cross_entropy", 0]
    found = read_predictions(tmp_path / "results" / "classes", name)
    assert found is not None
    trial = tmp_path / "results" / "classes" / "trials" / name
    assert evaluate([str(next(trial.glob("attempt-1/weights-*.pt")))]) == 0
    with (trial / "evaluation" / "test-whole" / "per_image.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["predicted"] == "1"]
    predicted = {row["image"]: row["class"] for row in rows}
    for index in found["indices"].tolist():
        assert predicted[str(index)] == f"digit_{int(found[f'prediction_{index}'])}"
    (pictures,) = qualitative(make_report(tmp_path / "results" / "classes").sources)
    assert "4 report images" in pictures.alt


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tini"], "error: no study is called 'tini' in"),
        (["tiny", "--arms", "sra"], "error: --arms: the study has no arm 'sra'; did you mean 'sar'?"),
        (["tiny", "--seeds", "0"], "error: --seeds: 0 is outside [1, "),
        (["tiny", "--images", "65"], "error: --images: 65 is outside [1, 64]"),
        (["tiny", "--threads", "0"], "error: --threads: 0 is outside [1, "),
        (["tiny", "optim.lr=1"], "error: optim.lr: a trained model has it already"),
    ],
)
def test_mistakes(storage: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert probe(storage, *arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(said)
    assert len(errors.splitlines()) == 1
    assert not (storage / "tiny" / "probe").exists()


def test_a_folder_that_cannot_be_written_is_named(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (storage / "tiny" / "probe").write_text("in the way")
    assert probe(storage, "tiny", "--arms", "sar", "--images", "1") == 2
    errors = capsys.readouterr().err
    assert f"{storage / 'tiny' / 'probe'}: cannot be written (" in errors
    assert len(errors.splitlines()) == 1


def test_a_study_without_results_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(STUDY)
    everything = frozenset((arm, seed) for arm in ("cross_entropy", "sar") for seed in (0, 1))
    run_confirm_study(tmp_path / "tiny.yaml", tmp_path / "results", skip=everything)
    assert probe(tmp_path / "results", "tiny") == 2
    assert "tiny: no such confirm trial has finished yet (stopped); next: " in capsys.readouterr().err


def test_probing_is_no_part_of_what_trains() -> None:
    files = training_code().files
    assert "training/report.py" in files
    assert not [name for name in files if "prob" in name and name != "training/probe.py"]


def test_its_help_is_quick_and_light() -> None:
    code = (
        "import sys, time; from sarx.probe import parser; parser().format_help(); "
        "print(time.process_time()); print({'torch', 'numpy', 'ray', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert float(lines[0]) < 0.3
    assert lines[-1] == "set()"
