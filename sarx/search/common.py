"""The points that all arms share: proposal i of every arm takes its parameters from point i."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sarx.search.book import Place, search_seed
from sarx.search.propose import common_point
from sarx.study.ledger import Event, unpack_parameters
from sarx.study.schema import Study
from sarx.study.seeds import derive
from sarx.study.space import contains


class CommonPoints:
    """Common points by repeat and index; what earlier starts proposed at an index stays.

    Args:
        study: The study.
        proposed: The ``proposed`` events of the ledger, by place.
    """

    def __init__(self, study: Study, proposed: Mapping[Place, Event]) -> None:
        """Index the proposals of earlier starts."""
        self.study = study
        self.space = tuple(study.search.parameters.values())
        self._made: dict[tuple[int, int], dict[str, Any]] = {}
        self._stored: dict[tuple[int, int], list[Event]] = {}
        for (_, _, repeat, index), event in proposed.items():
            self._stored.setdefault((repeat, index), []).append(event)

    def point(self, repeat: int, index: int) -> dict[str, Any]:
        """Return the common point: values by dotted key; empty for the default."""
        key = (repeat, index)
        if key not in self._made:
            seed = derive(self.study.seed, "repeat", repeat) if repeat else self.study.seed
            point = common_point(self.space, self.study.search.sampler.name, seed=seed, index=index)
            grid = self.study.search.sampler.name == "grid"  # whose cell follows from its index
            for event in () if grid else self._stored.get(key, ()):
                point |= self._still_valid(event, repeat, index)
            self._made[key] = point
        return self._made[key]

    def _still_valid(self, event: Event, repeat: int, index: int) -> dict[str, Any]:
        if event["seed"] != search_seed(self.study, index, repeat):
            return {}
        stored = unpack_parameters(event["parameters"])
        return {p.key: stored[p.key] for p in self.space if contains(p, stored.get(p.key))}
