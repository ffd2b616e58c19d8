"""Tokens: made here, and readable for their user alone."""

from __future__ import annotations

import os
import re

import pytest

from sarx.cluster.tokens import make_token, own_token, use_token
from sarx.config.errors import UserError


def test_a_token_is_for_its_user_alone_and_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "token" / "auth_token"
    make_token(path)
    first = path.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    make_token(path)
    assert path.read_text() == first
    path.chmod(0o644)
    with pytest.raises(UserError, match="others can read the token"):
        make_token(path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    use_token(path)
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN_PATH"]) == ("token", str(path))


def test_the_users_own_token_is_for_them_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / ".ray" / "auth_token"
    own_token(make=False)
    assert not path.exists()
    own_token(make=True)
    first = path.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)  # as Ray makes it
    own_token(make=False)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == first
    assert [entry.name for entry in path.parent.iterdir()] == ["auth_token"]
    path.unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "another"))
    own_token(make=True)
    assert not path.exists()
