"""Plain text as LaTeX that prints exactly that text, with any engine and without further packages.

Nothing of the text is left to be a command, a comment, an alignment or a ligature. Letters with accents
become accent commands and Greek letters and signs mathematics, so that old engines and fonts have them; what
has no name here prints as its code point.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata

_ASCII = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "`": r"\`{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}
"""Brackets and stars would be read as arguments of a line break; some languages make the quote active."""
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0323": "d",
    "\u0327": "c",
    "\u0331": "b",
}
_LETTERS = {
    "\u00df": r"\ss{}",
    "\u00c6": r"\AE{}",
    "\u00e6": r"\ae{}",
    "\u0152": r"\OE{}",
    "\u0153": r"\oe{}",
    "\u00d8": r"\O{}",
    "\u00f8": r"\o{}",
    "\u0141": r"\L{}",
    "\u0142": r"\l{}",
    "\u0131": r"\i{}",
    "\u2013": r"\textendash{}",
    "\u2014": r"\textemdash{}",
    "\u2018": r"\textquoteleft{}",
    "\u2019": r"\textquoteright{}",
    "\u201c": r"\textquotedblleft{}",
    "\u201d": r"\textquotedblright{}",
    "\u2026": r"\textellipsis{}",
    "\u00a7": r"\S{}",
    "\u00b6": r"\P{}",
    "\u00a9": r"\textcopyright{}",
}
_GREEK = (
    "\u03b1\u03b2\u03b3\u03b4\u03b5\u03b6\u03b7\u03b8\u03b9\u03ba\u03bb\u03bc\u03bd\u03be\u03c0\u03c1"
    "\u03c3\u03c4\u03c5\u03c6\u03c7\u03c8\u03c9\u0393\u0394\u0398\u039b\u039e\u03a0\u03a3\u03a6\u03a8\u03a9"
)
_GREEK_NAMES = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu{} nu xi pi rho sigma tau upsilon phi chi
psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"""
_SIGNS = {
    "\u2212": "-",
    "\u00b1": r"\pm",
    "\u00d7": r"\times",
    "\u00f7": r"\div",
    "\u00b7": r"\cdot",
    "\u2264": r"\leq",
    "\u2265": r"\geq",
    "\u2260": r"\neq",
    "\u2248": r"\approx",
    "\u2190": r"\leftarrow",
    "\u2192": r"\rightarrow",
    "\u221e": r"\infty",
    "\u00b0": r"^\circ",
    "\u00b2": r"^2",
    "\u00b3": r"^3",
    "\u00b5": r"\mu",
    **{letter: rf"\{name}" for letter, name in zip(_GREEK, _GREEK_NAMES.split(), strict=True)},
}
_MINUS = re.compile(r"(?<![\w)\]}.-])-(?=\.?\d)|(?<=\d[eE])-(?=\d)")
_LIGATURE = re.compile(r"([-',])(?=\1)")
_BREAK_AFTER = frozenset("_/\\=|&#^%{}<>@*:")
_RUN = 24
"""Characters without any other place to break a line."""
_PLUS_MINUS = re.compile(r"\+-(?=\.?\d)")


@functools.cache
def latex(text: str, breakable: bool = False) -> str:
    """Return text, on one line, as LaTeX.

    A hyphen before a number is a minus sign, ``+-`` before one is the sign for plus or minus; hyphens within
    words and ranges stay hyphens.

    Args:
        text: plain text.
        breakable: lines may end within names: after signs, dots, and long runs of anything.
    """
    line = unicodedata.normalize("NFC", " ".join(text.split()))
    line = _MINUS.sub("\u2212", _PLUS_MINUS.sub("\u00b1", line))
    apart = {match.start() for match in _LIGATURE.finditer(line)}
    breaks = _breaks(line) if breakable else set()
    if not apart and not breaks:
        return line.translate(_CHARACTERS)
    return "".join(
        _CHARACTERS[ord(character)]
        + ("{}" if place in apart else "")
        + (r"\allowbreak{}" if place in breaks else "")
        for place, character in enumerate(line)
    )


def _breaks(line: str) -> set[int]:
    """Return the places after which a line may end although there is no blank."""
    found, since = set(), 0
    for place, (character, following) in enumerate(itertools.pairwise(line)):
        since = 0 if character == " " else since + 1
        dot = character == "." and place > 0 and line[place - 1].isalpha() and following.isalpha()
        if following != " " and (dot or character in _BREAK_AFTER or since >= _RUN):
            found.add(place)
            since = 0
    return found


def _character(character: str) -> str:
    """Return one character as LaTeX."""
    if character in _ASCII:
        return _ASCII[character]
    if " " <= character <= "~":
        return character
    if character in _LETTERS:
        return _LETTERS[character]
    if character in _SIGNS:
        return f"${_SIGNS[character]}$"
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[1] in _ACCENTS and parts[0].isascii() and parts[0].isalpha():
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return rf"\texttt{{U+{ord(character):04X}}}"


class _Characters(dict[int, str]):
    """LaTeX by code point, made when it is asked for."""

    def __missing__(self, code: int) -> str:
        """Make that of a character."""
        self[code] = _character(chr(code))
        return self[code]


_CHARACTERS = _Characters()
