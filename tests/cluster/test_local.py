"""Ports and messages of the cluster on this machine (a whole cluster is in tests/ray)."""

from __future__ import annotations

import socket

import pytest

from sarx.cluster import local
from sarx.config.errors import UserError

RAY_WORKER_PORTS = range(10002, 20000)  # Ray 2.60 refuses to start with another port of ours among them


def test_ports_are_unused_distinct_and_none_of_ray_workers():
    ports = local.unused_ports(50)
    assert len(set(ports)) == 50
    assert not set(ports) & set(RAY_WORKER_PORTS)
    assert max(ports) < 32768  # Linux gives these and higher ones to outgoing connections


def test_a_port_in_use_or_set_aside_is_not_given(monkeypatch):
    (first,) = local.unused_ports(1)
    monkeypatch.setattr(local, "PORTS", range(first, first + 1))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        with pytest.raises(UserError, match="no unused port"):
            local.unused_ports(1)
    with pytest.raises(UserError, match="no unused port"):
        local.unused_ports(1, apart_from=first)


@pytest.mark.slow
def test_what_ray_says_when_it_does_not_start_is_shown(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    tried = []
    refused = [RAY_WORKER_PORTS.start + offset for offset in range(3)]
    monkeypatch.setattr(local, "unused_ports", lambda count, apart_from: tried.append(count) or refused)
    with pytest.raises(UserError, match="worker_ports is trying to use a port number 10002"):
        local.up(port=local.PORTS.start)
    assert len(tried) == local.ATTEMPTS
    assert not local.RECORD.exists()
