"""How fast the embedded scenes are made: ``just bench scenes``.

The bar is absolute because the promise is: 3,000 scenes in under 2 s on one core.
"""

from __future__ import annotations

import sys
import time

from sarx.config.schema.data import DigitScenesConfig
from sarx.data import digit_scenes

BOUND_S = 2.0


def main() -> int:
    """Make train, val and test three times past the cache, and judge the best."""
    config = DigitScenesConfig()
    digit_scenes.make_arrays(config, 0, "val")  # loads the digits once
    rows = []
    for seed in range(3):
        started = time.perf_counter()
        count = sum(
            len(digit_scenes.make_arrays(config, seed, split)["labels"]) for split in ("train", "val", "test")
        )
        rows.append((seed, count, time.perf_counter() - started))
    print("seed  scenes  seconds  scenes/s")
    for seed, count, seconds in rows:
        print(f"{seed:4d}  {count:6d}  {seconds:7.2f}  {count / seconds:8.0f}")
    best = min(seconds for _, _, seconds in rows)
    passed = best <= BOUND_S
    print(f"BAR scenes_3000_s {best:.3f} <= {BOUND_S} {'pass' if passed else 'fail'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
