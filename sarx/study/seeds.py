"""Seeds from names: every stream of random numbers is a hash of what it is for."""

from __future__ import annotations

import hashlib

SEED_BITS = 63


def derive(*parts: str | int) -> int:
    """Return a seed in [0, 2**63) that depends on all parts and on nothing else."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - SEED_BITS)
