"""Where the files of a data set lie: said by an option, or by the folder of all data sets."""

from __future__ import annotations

import os
from pathlib import Path

DATA = "SARX_DATA"
"""Environment variable: the folder that holds the data sets, each in a folder of its name."""


def resolved(root: str, name: str) -> str:
    """Return a root as an absolute path; without one the folder ``name`` below ``SARX_DATA``, or nothing.

    Trials run in other folders and, on a cluster, without the driver's environment.
    """
    if not root and (around := os.environ.get(DATA)):
        root = str(Path(around) / name)
    return str(Path(root).expanduser().absolute()) if root else ""
