"""Python source without its comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize

_ODD_LINE_ENDS = re.compile("\r(?!\n)|[\v\f\x1c-\x1e\x85\u2028\u2029]")


def without_comments(text: str, nodes: list[ast.AST]) -> list[str]:
    """Return the lines of a source without its comments.

    A # begins a comment unless it stands in a string. Where no quote precedes it on its line and no string
    goes on from the line above, it does not; only sources with a # in doubt are taken apart token by token,
    which is slow.
    """
    if _ODD_LINE_ENDS.search(text):  # which str.splitlines and Python's grammar see differently
        return without_comment_tokens(text)
    lines = text.splitlines()
    marked = [row for row, line in enumerate(lines) if "#" in line]
    inside: set[int] = set()
    for node in nodes if marked else ():
        if isinstance(node, (ast.Constant, ast.JoinedStr)):
            inside.update(range(node.lineno, node.end_lineno or node.lineno))  # rows below its first
    for row in marked:
        before = lines[row].partition("#")[0]
        if row in inside or "'" in before or '"' in before:
            return without_comment_tokens(text)
        lines[row] = before
    return lines


def without_comment_tokens(text: str) -> list[str]:
    """Return the lines of any source without its comments."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return lines
