"""What makes a text or a value safe to print."""

import doctest

import pytest

from repo_verl import safe_text
from repo_verl.safe_text import printable, shown


def test_texts_are_one_printable_line():
    assert printable("a\\b\tµ\u200b\x7f\x85 \U0001f600") == r"a\b\tµ\u200b\x7f\x85 " + "\U0001f600"
    assert printable("\x1b[2J\n\ud800") == r"\x1b[2J\n\ud800"
    assert printable("abcdef", 4) == "abcd ... (2 characters more)" and printable("abcd", 4) == "abcd"
    assert printable("x" * 9999) == "x" * 9999 and printable("") == printable("", 0) == ""


def test_values_are_a_short_repr():
    assert shown("a'b\n") == '"a\'b\\n"' and shown(None) == "None" and shown({"é": 1}) == "{'é': 1}"
    assert shown("x" * 500, 20) == "'" + "x" * 16 + "..." and len(shown([["x" * 999] * 99])) == 100

    class Loud:
        def __repr__(self):
            return "<\x1b[2J\n>"

    assert shown(Loud()) == r"<\x1b[2J\n>"
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a list that is nested too deeply"


@pytest.mark.parametrize("make", [printable, shown])
def test_all_characters_come_out_printable(make):
    every = "".join(map(chr, range(0x3100))) + "".join(map(chr, range(0xD7F0, 0xE010))) + "\U000e0001\U0010ffff"
    assert make(every, 10**9).isprintable()


def test_the_examples():
    assert doctest.testmod(safe_text).failed == 0
