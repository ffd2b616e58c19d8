"""From a finished search to its winner: directly, or by running the finalists again."""

from __future__ import annotations

import math

from sarx.search.arm_search import ArmSearch, Seat
from sarx.search.book import Book
from sarx.search.claims import Claim
from sarx.study.ledger_schema import FINALIST


class Choice:
    """The choice of the winner of one search.

    Without finalists it is the best trial at its last epoch. With them the best ``top`` are trained again, in
    full, on seeds that search has not seen, and the best mean over these wins; a run that failed or diverged
    counts as the worst.

    Args:
        book: Ledger and records.
        search: The search, done.
    """

    def __init__(self, book: Book, search: ArmSearch) -> None:
        """Take the finalists of a finished search."""
        self.book = book
        self.key = (search.arm.key, search.repeat)
        self.search = search
        finalists = book.study.search.finalists
        ranked = search.ranking()
        self.candidates = ranked[: max(1, finalists.top)]
        self.seats: list[Seat] = []
        self.open = 0
        if finalists.top and len(self.candidates) > 1:
            for place, (_, candidate) in enumerate(self.candidates):
                for k in range(finalists.seeds):
                    self._run(search, candidate, place * finalists.seeds + k, k)

    def _run(self, search: ArmSearch, candidate: Claim, index: int, k: int) -> None:
        book = self.book
        claim = book.claim(
            search.arm,
            FINALIST,
            index,
            candidate.parameters,
            repeat=search.repeat,
            proposal=candidate.index,
            seed=book.seed(FINALIST, k, search.repeat),
        )
        book.claim_once(claim, proposal=candidate.index)
        self.seats.append(Seat(claim, claim.epochs, home=self))
        self.open += 1

    @property
    def done(self) -> bool:
        """Whether the winner can be told."""
        return self.open == 0

    def winner(self) -> Claim | None:
        """Return the winner, ties to the better of the search; None if no trial ran to the end."""
        if not self.candidates:
            return None
        if not self.seats:
            value, best = self.candidates[0]
        else:
            scores: dict[int, list[float]] = {}
            for seat in self.seats:
                final = self.book.value(self.book.record(seat.claim).final)
                scores.setdefault(seat.claim.proposal or 0, []).append(final)
            means = [
                (math.fsum(found) / len(found) if -math.inf not in found else -math.inf, claim)
                for claim in (claim for _, claim in self.candidates)
                for found in [scores[claim.index]]
            ]
            value, best = max(means, key=lambda item: item[0])
            if value == -math.inf:
                return None
        value = value if self.book.study.objective.mode == "max" else -value
        self.book.write_winner(best, value, self.search.chosen(best))
        return best
