"""What is a comment is found quickly, and as the tokenizer finds it."""

import ast
from pathlib import Path

import pytest

from sarx.study.comments import without_comment_tokens, without_comments


def test_comments_are_taken_out_the_same_way_quickly_and_slowly():
    root = Path(__file__).resolve().parents[2]
    files = list((root / "sarx").glob("**/*.py"))
    assert len(files) > 100
    quick = 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        slow = without_comment_tokens(text)
        found = without_comments(text, list(ast.walk(ast.parse(text))))
        assert found == slow, file
        quick += "#" in text
    assert quick > 10


@pytest.mark.parametrize(
    "text",
    [
        "x = 1  # one\n",
        "x = '#'  # one\n",
        'x = """\n# no comment\n"""\n',
        "x = '''a\nb # no comment''' # one\n",
        "x = f'''\n# {1} no comment\n'''\n",
        "x = (1,  # one\n     '# two')\n",
        "x = 1 \\\n  + 2  # ' three\n",
        "x = ('a'\n# between two pieces of one string\n'b')\n",
        "x = f'a' \\\n    'b'  # one\n",
        'x = """a\x0c\nb # no comment"""\n',
        "x = 1\n\x0c\ny = 2  # one\n",
        "x = 'a\u2028'  # one\n",
        "x = b'''\n# no comment'''\n",
        "x = ('''a\n'''\n   # between\n   f'{1}')\n",
    ],
)
def test_what_is_a_comment_and_what_is_not(text):
    nodes = list(ast.walk(ast.parse(text)))
    assert without_comments(text, nodes) == without_comment_tokens(text)
