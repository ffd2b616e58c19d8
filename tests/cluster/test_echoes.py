"""Which errors of a rank may only say that another rank failed."""

import pytest
from torch import distributed as dist

from sarx.cluster.ranks import is_echo
from sarx.config.errors import UserError


@pytest.mark.parametrize(
    ("error", "echo"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3"), True),
        (RuntimeError("another rank failed; its own error says why"), True),
        (RuntimeError("rank 0 failed: no report today"), True),
        (dist.DistStoreError("wait timeout after 600000ms"), True),
        (RuntimeError("CUDA out of memory"), False),
        (UserError("cannot be read: truncated", where="/data/gloomy.png"), False),
        (UserError("cannot be read: truncated", where="/data/a.png"), False),
        (ValueError("label 300 is neither a class nor ignore_index"), False),
    ],
)
def test_an_echo_is_told_from_a_cause(error, echo):
    assert is_echo(error) is echo
