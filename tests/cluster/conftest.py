"""What tests of places share."""

from __future__ import annotations

import shutil

import pytest

from sarx.cluster.place import MARKED


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of clusters/ in a working folder of its own, with every marked value filled in."""
    shutil.copytree("clusters", tmp_path / "clusters")
    for path in (tmp_path / "clusters").rglob("*"):
        if path.is_file():
            text = MARKED.sub(lambda mark: "bucket" if "BUCKET" in mark[0] else "/x", path.read_text())
            path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path
