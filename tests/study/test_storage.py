"""Where results lie, and where they must not."""

import pytest

from sarx.config.errors import UserError
from sarx.study.storage import StudyFolder, open_folder, storage_root

SESSION = "session_2026-01-02_03-04-05_678901_234"


def test_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SARX_STORAGE", str(tmp_path / "lasting"))
    assert storage_root(str(tmp_path / "given")) == tmp_path / "given"
    assert storage_root(None) == tmp_path / "lasting"
    monkeypatch.setenv("SARX_STORAGE", "")
    assert storage_root(None) == tmp_path / "results"
    monkeypatch.delenv("SARX_STORAGE")
    assert storage_root(None) == tmp_path / "results"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage_root("~/here") == tmp_path / "here"


@pytest.mark.parametrize(
    "place",
    [
        f"ray/{SESSION}/results",
        f"sarx-ray-x1/{SESSION}",
        "ray/session_latest/logs",
        f"other/{SESSION}/runtime_resources/working_dir_files/_ray_pkg_0123/results",
        "elsewhere/runtime_resources/working_dir_files/_ray_pkg_0123/results",
    ],
)
def test_rays_own_folders_are_refused(tmp_path, monkeypatch, place):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    monkeypatch.delenv("SARX_STORAGE", raising=False)
    monkeypatch.chdir(folder)
    for given in (str(folder), None):
        with pytest.raises(UserError, match=r"^storage: .* would vanish with it; give --storage DIR or set"):
            storage_root(given)
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(UserError, match="would vanish"):
        storage_root(str(link / "results"))


@pytest.mark.parametrize(
    "place", ["ray/results", "session_notes", "ray/session_notes/results", "working_dir_files"]
)
def test_other_folders_are_not(tmp_path, place):
    assert storage_root(str(tmp_path / place)) == tmp_path / place


def test_a_home_that_does_not_exist_is_a_users_mistake():
    with pytest.raises(UserError, match="~nobody-here-by-that-name/x is not a folder"):
        storage_root("~nobody-here-by-that-name/x")


def test_a_folder_is_made_and_can_be_made_again(tmp_path):
    for _ in range(2):
        folder = open_folder(tmp_path / "deep" / "results", "small")
    assert folder == StudyFolder(tmp_path / "deep" / "results" / "small")
    assert sorted(path.name for path in folder.root.iterdir()) == [
        "ledger",
        "report",
        "tensorboard",
        "trials",
    ]
    assert list(folder.ledger.iterdir()) == []
    assert folder.attempt("t", 2) == folder.root / "trials" / "t" / "attempt-2"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^storage: .*file/small cannot be written \(Not a directory\)"):
        open_folder(tmp_path / "file", "small")
