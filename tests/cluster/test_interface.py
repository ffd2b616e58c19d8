"""The interface of an address."""

from __future__ import annotations

import os

from sarx.cluster import interface


def test_loopback_has_its_interface_and_a_stranger_has_none():
    assert interface.interface_of("127.0.0.1") == "lo"
    assert interface.interface_of("203.0.113.7") is None
    assert interface.interface_of("::1") is None


def test_gloo_and_nccl_use_it_unless_the_user_chose_one(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    assert interface.use_interface("127.0.0.1") == "lo"
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "ib0"
