"""Two-level fractional factorials of resolution IV or more, with the fewest runs.

Written here rather than taken from a library: pydoe's ``fracfact_by_res`` gives the runs alone, without the
words that say what is aliased with what, and for 5 factors resolution IV where 16 runs allow V.

Words are sets of factors, kept as bit masks: bit i is factor i. A word is in the defining relation if the
product of its factors' signs is + in every run. Source: Box, Hunter and Hunter, "Statistics for
Experimenters", 2005, chapter 6; the fractions are those of Chen, Sun and Wu, "A catalogue of two-level and
three-level fractional factorial designs with small runs", International Statistical Review 61, 1993.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

SMALLEST = 4
"""Below this many factors no fraction has resolution IV."""
LARGEST = 16
"""More factors than this need 64 runs or more."""


@dataclass(frozen=True)
class Fraction:
    """A regular fraction.

    Attributes:
        factors: Number of factors, k.
        basic: Number of factors that vary freely; the fraction has 2^basic runs.
        generators: For each further factor the word of basic factors whose product is its sign.
    """

    factors: int
    basic: int
    generators: tuple[int, ...]

    @property
    def words(self) -> tuple[int, ...]:
        """The defining relation without the identity, shortest words first."""
        found = [0]
        for i, generator in enumerate(self.generators):
            found += [word ^ generator ^ (1 << (self.basic + i)) for word in found]
        return tuple(sorted(found[1:], key=lambda word: (word.bit_count(), letters(word))))

    @property
    def resolution(self) -> int:
        """Length of the shortest word: IV keeps main effects clear of two-factor interactions."""
        return self.words[0].bit_count()

    @property
    def pattern(self) -> tuple[int, ...]:
        """Number of words of length 1, 2, ... k; of two fractions the smaller has less aberration."""
        lengths = [word.bit_count() for word in self.words]
        return tuple(lengths.count(length) for length in range(1, self.factors + 1))

    @property
    def runs(self) -> Iterator[tuple[int, ...]]:
        """The level, 0 or 1, of every factor in each run; the first run has every factor at 0.

        Level 0 is the sign +, so that the products of the words are + in the first run and in all others.
        """
        for free in itertools.product((0, 1), repeat=self.basic):
            yield (
                *free,
                *(sum(free[i] for i in letters(word)) % 2 for word in self.generators),
            )

    @property
    def aliases(self) -> list[list[tuple[int, int]]]:
        """The groups of two-factor interactions that the fraction cannot tell apart."""
        columns = [*(1 << i for i in range(self.basic)), *self.generators]
        groups: dict[int, list[tuple[int, int]]] = {}
        for i, j in itertools.combinations(range(self.factors), 2):
            groups.setdefault(columns[i] ^ columns[j], []).append((i, j))
        return [group for group in groups.values() if len(group) > 1]


def letters(word: int) -> tuple[int, ...]:
    """Return the factors of a word, ascending."""
    return tuple(i for i in range(word.bit_length()) if word >> i & 1)


@cache
def fraction(factors: int) -> Fraction:
    """Return the fraction of least aberration among those with the fewest runs and resolution IV or more.

    A fraction in 2^b runs can have resolution IV for up to 2^(b-1) factors: all words of odd length then
    serve as generators.

    Args:
        factors: Number of factors, ``SMALLEST`` to ``LARGEST``.
    """
    assert SMALLEST <= factors <= LARGEST
    basic = (factors - 1).bit_length() + 1
    candidates = sorted(
        (word for word in range(1 << basic) if word.bit_count() >= 3),
        key=lambda word: (word.bit_count(), letters(word)),
    )
    choices = _resolution_four(candidates, basic, factors - basic)
    return min((Fraction(factors, basic, chosen) for chosen in choices), key=lambda found: found.pattern)


def _resolution_four(
    candidates: Sequence[int],
    basic: int,
    count: int,
    chosen: tuple[int, ...] = (),
    words: Sequence[int] = (0,),
) -> Iterator[tuple[int, ...]]:
    """Yield every choice of generators, in the order of the candidates, without a word shorter than 4."""
    if len(chosen) == count:
        yield chosen
        return
    for i, generator in enumerate(candidates):
        new = [word ^ generator ^ (1 << (basic + len(chosen))) for word in words]
        if all(word.bit_count() >= 4 for word in new):
            yield from _resolution_four(
                candidates[i + 1 :], basic, count, (*chosen, generator), [*words, *new]
            )


def aliases(names: Sequence[str]) -> list[str]:
    """Return the two-factor interactions that share an estimate, such as ``pull:ema = distance:gate``."""
    return [" = ".join(f"{names[i]}:{names[j]}" for i, j in group) for group in fraction(len(names)).aliases]
