"""The fractions against the textbook, and against their own runs by brute force."""

import itertools

import pytest

from sarx.study.fractional import LARGEST, SMALLEST, Fraction, aliases, fraction

# Box, Hunter and Hunter (2005), Montgomery (2017): factors, runs, resolution, generators.
TEXTBOOK = {
    "2^(4-1)IV": (4, 8, 4, ["abc"]),
    "2^(5-1)V": (5, 16, 5, ["abcd"]),
    "2^(6-2)IV": (6, 16, 4, ["abc", "bcd"]),
    "2^(7-3)IV": (7, 16, 4, ["abc", "bcd", "acd"]),
    "2^(8-4)IV": (8, 16, 4, ["bcd", "acd", "abc", "abd"]),
}
# Words of length 4, 5, ... of the first design of each size in Chen, Sun and Wu (1993).
CATALOGUE = {
    9: (6, 8, 0, 0, 1),
    10: (10, 16, 0, 0, 5),
    11: (25, 0, 27, 0, 10, 0, 1),
    12: (38, 0, 52, 0, 33, 0, 4),
}


def mask(letters):
    return sum(1 << "abcdefgh".index(letter) for letter in letters)


def signs(found):
    """Return the runs as rows of +1 and -1; level 0 is +1."""
    return [[1 - 2 * level for level in run] for run in found.runs]


def constant_products(found, length):
    """Return the sets of factors whose product of signs is the same in all runs, found by multiplying."""
    rows = signs(found)
    sets = []
    for chosen in itertools.combinations(range(found.factors), length):
        products = set()
        for row in rows:
            product = 1
            for i in chosen:
                product *= row[i]
            products.add(product)
        if len(products) == 1:
            sets.append((chosen, products.pop()))
    return sets


@pytest.mark.parametrize("name", TEXTBOOK)
def test_the_textbook_table(name):
    factors, runs, resolution, generators = TEXTBOOK[name]
    found = fraction(factors)
    book = Fraction(factors, found.basic, tuple(map(mask, generators)))
    assert 2**found.basic == runs
    assert found.resolution == book.resolution == resolution
    assert found.pattern == book.pattern


@pytest.mark.parametrize("factors", CATALOGUE)
def test_the_catalogue_of_least_aberration(factors):
    found = fraction(factors)
    assert 2**found.basic == 32
    assert found.pattern[3 : 3 + len(CATALOGUE[factors])] == CATALOGUE[factors]


@pytest.mark.parametrize("factors", range(SMALLEST, 11))
def test_runs_words_and_aliases_agree_by_multiplying_out(factors):
    found = fraction(factors)
    rows = signs(found)
    assert len({tuple(row) for row in rows}) == len(rows) == 2**found.basic
    assert rows[0] == [1] * factors
    assert all(sum(row[i] for row in rows) == 0 for i in range(factors))
    for length in (1, 2, 3):
        assert constant_products(found, length) == []  # main effects clear of each other and of pairs
    words = {tuple(i for i in range(factors) if word >> i & 1) for word in found.words}
    fours = constant_products(found, 4)
    assert {chosen for chosen, _ in fours} == {word for word in words if len(word) == 4}
    assert {sign for _, sign in fours} <= {1}
    columns = {
        pair: tuple(row[pair[0]] * row[pair[1]] for row in rows)
        for pair in itertools.combinations(range(factors), 2)
    }
    same = {
        frozenset(other for other in columns if columns[other] == columns[pair])
        for pair in columns
        if sum(columns[other] == columns[pair] for other in columns) > 1
    }
    assert {frozenset(group) for group in found.aliases} == same


@pytest.mark.parametrize("factors", [5, 6, 7, 8])
def test_no_fraction_with_half_the_runs_has_resolution_four(factors):
    basic = fraction(factors).basic - 1
    words = [word for word in range(1 << basic) if word.bit_count() > 1]
    choices = itertools.product(words, repeat=factors - basic)
    assert all(Fraction(factors, basic, chosen).resolution < 4 for chosen in choices)


@pytest.mark.parametrize("factors", range(SMALLEST, LARGEST + 1))
def test_every_number_of_factors_has_resolution_four(factors):
    found = fraction(factors)
    assert found.resolution >= 4
    assert 2 ** (found.basic - 2) < factors <= 2 ** (found.basic - 1)


def test_aliases_by_name():
    assert aliases(["pull", "ema", "distance", "gate"]) == [
        "pull:ema = distance:gate",
        "pull:distance = ema:gate",
        "pull:gate = ema:distance",
    ]
    assert aliases("abcde") == []
