"""Whether a forward is a new one, or one that autograd repeats."""

from __future__ import annotations

import torch


def is_recomputing() -> bool:
    """Return whether this forward runs inside a backward pass: activation checkpointing repeats it there.

    State must not move a second time then. Under torch.compile the answer is always no: there checkpointing
    is part of the compiled graph.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._current_graph_task_id() != -1
