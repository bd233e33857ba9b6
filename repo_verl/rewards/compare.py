r"""Are two answers the same answer? The rules for structures, numbers and words; expressions go to a symbolic engine.

Verdicts have three values. Without an engine, None says that only it can tell: so the cheap path and the full path are
the same rules, and cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from repo_verl.rewards.normalize import TRUTH_WORDS, choice, clean, compact, letters, renamed, unwrap, word
from repo_verl.rewards.quantities import based_number, equal_numbers, exact_number, split_unit
from repo_verl.rewards.structure import Chain, Equation, Group, Node, Scalar, Words, leaves, quotients, read, vector

Symbolic = Callable[[str, str, float | None], bool]
"""``(gold, answer, tolerance)`` as LaTeX, units removed -> equal."""

MAX_PAIRS = 4096  # sets of more pairs of elements are left to the judge process, where a clock runs
MAX_WORDS = 4  # a gold answer of more words is prose, which no rule can judge but by its letters

_ANY_WORD = re.compile(r"[A-Za-z]+")
_OPERATOR = re.compile(r".[+-]|/|\\(?:frac|cdot|times)(?![A-Za-z])")
_ALIKE = ({"degree", "degree C"}, {"degree", "degree F"})
_NAME = re.compile(r"\\[A-Za-z]+|([A-Za-z](?:_\w|_\{\w+\})?)")
_CURVE = re.compile(r"[xyz](?!_)|\^")
_CHOICES = re.compile("(?=..)A?B?C?D?E?")
_NEGATED = re.compile(
    r"\\(?:not(?!\s*=)|neg|lnot|notin|nexists)(?![A-Za-z])"
    r"|(?<!\\)(?<!non-)\b(?:not|never|neither|nor|none|false|wrong|incorrect|negative)\b|n't\b",
    re.IGNORECASE,
)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_SUBSCRIPTED = re.compile(r"[+-]?\(?[0-9][0-9A-Za-z]*\)?\s*_")
_PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_SAID = r"[A-Za-z]{2,}[ ,]+(?:[0-9]+ ?)?[A-Za-z]{2,}"
# a sentence or a part of one: an engine would read its words as products of letters
_PROSE = re.compile(rf"(?<![\\A-Za-z])(?={_SAID})[A-Za-z ,0-9]*[A-Za-z]{{3}}")


def verdict(answer: str, gold: str, tolerance: float | None = None, symbolic: Symbolic | None = None) -> bool | None:
    r"""Whether the answer is the gold answer; None where only the symbolic engine can tell and there is none.

    ``tolerance`` is the largest absolute difference between numbers that is still right.

    Raises: TooDeep for brackets nested more than 12 deep; what ``symbolic`` raises.

    Example:
        >>> verdict("2, 1", "1, 2"), verdict("(2,1)", "(1,2)"), verdict("x+1", "1+x")
        (True, False, None)
    """
    cleaned_gold, cleaned_answer = clean(gold), clean(answer)
    gold_word = word(cleaned_gold)
    # in the raw texts: normalization drops what stands behind a quantifier, as in "5 for all n is wrong"
    if gold_word not in TRUTH_WORDS and bool(_NEGATED.search(gold)) != bool(_NEGATED.search(answer)):
        return False
    if compact(cleaned_gold) == compact(cleaned_answer):
        return True
    cleaned_answer = renamed(cleaned_answer, cleaned_gold)
    if gold_word in TRUTH_WORDS:
        return _truth(cleaned_answer) == gold_word
    if _CHOICES.fullmatch(cleaned_gold) and "," in cleaned_answer:
        picks = [choice(part) for part in cleaned_answer.split(",")]
        if None not in picks:
            return sorted(filter(None, picks)) == list(cleaned_gold)
    letter = choice(cleaned_gold)
    if letter is not None:
        picked = choice(cleaned_answer, with_content=True)
        if picked is not None:
            return picked == letter
        lowered = choice(cleaned_answer.upper())
        if compact(cleaned_gold) != letter or (letter <= "E" and lowered == letter):
            return lowered == letter
    return _Comparison(tolerance, symbolic).same(read(cleaned_gold), read(cleaned_answer))


def engine_texts(gold: str) -> list[str] | None:
    """What the symbolic engine must be able to parse so that a gold answer can be judged; None where none can be."""
    cleaned = clean(gold)
    if choice(cleaned) is not None:
        return []
    found = leaves(read(cleaned))
    if not cleaned or any(len(_PLAIN_WORD.findall(leaf.text)) > MAX_WORDS for leaf in found):
        return None
    texts = [split_unit(leaf.text)[0] for leaf in found if isinstance(leaf, Scalar)]
    return [unwrap(text).removesuffix("%") for text in texts if exact_number(text) is None]


def _truth(answer: str) -> str | None:
    """The truth word that an answer is, or begins with before a comma or full stop ("No, not necessarily")."""
    words = [found.casefold() for found in _ANY_WORD.findall(unwrap(answer))]
    if not words or words[0] not in TRUTH_WORDS or TRUTH_WORDS & set(words[1:]):
        return None
    rest = unwrap(answer).lstrip(" (")[len(words[0]) :].lstrip(" )")
    return words[0] if not rest or rest[0] in ",.;:!" else None


@dataclass(frozen=True)
class _Comparison:
    """Verdicts on structures, the gold answer's first; see :func:`verdict`."""

    tolerance: float | None
    symbolic: Symbolic | None

    def same(self, gold: Node, answer: Node) -> bool | None:
        if isinstance(gold, Chain) or isinstance(answer, Chain):
            gold, answer = _stated(gold, answer, is_gold=True), _stated(answer, gold)
        if isinstance(gold, Chain) or (isinstance(answer, Chain) and isinstance(gold, Equation)):
            # a relation between expressions, of which no side is the answer
            return self._ask(gold, answer, None) if isinstance(answer, Chain | Equation) else False
        if isinstance(answer, Chain):
            if isinstance(gold, Scalar) and "=" in gold.text:
                return self._ask(gold, answer, None)
            return _decided(False, (self.same(gold, item) for item in answer.items))
        if isinstance(gold, Equation) and isinstance(answer, Equation):
            return self._equation(gold, answer)
        if isinstance(gold, Equation) or isinstance(answer, Equation):
            if any(isinstance(node, Scalar) and "=" in node.text for node in (gold, answer)):
                return self._ask(gold, answer, None)
            return self.same(getattr(gold, "value", gold), getattr(answer, "value", answer))
        if isinstance(gold, Words) or isinstance(answer, Words):
            return gold == answer
        if isinstance(gold, Group) and isinstance(answer, Group):
            return self._groups(gold, answer)
        if isinstance(gold, Group) or isinstance(answer, Group):
            return self._mixed(gold, answer)
        return self._scalar(gold.text, answer.text)

    def _equation(self, gold: Equation, answer: Equation) -> bool | None:
        if gold.name == answer.name:
            return self.same(gold.value, answer.value)
        numbers = [isinstance(node.value, Scalar) and exact_number(node.value.text) for node in (gold, answer)]
        return False if all(numbers) else self._ask(gold, answer, None)

    def _groups(self, gold: Group, answer: Group) -> bool | None:
        if gold.brackets == answer.brackets:
            sides = quotients(gold), quotients(answer)
            if len(sides[0]) == len(sides[1]) > 0:
                return self._in_order(*sides)
            return self._in_order(gold.items, answer.items) if gold.brackets else self._sets(gold, answer)
        if {gold.brackets, answer.brackets} == {"()", ""} and _names(gold) + _names(answer) == len(gold.items) > 1:
            return self._in_order(_by_name(gold), _by_name(answer))  # (2, 4) and x = 2, y = 4
        return False

    def _in_order(self, golds: Sequence[Node], answers: Sequence[Node]) -> bool | None:
        if len(golds) != len(answers):
            return False
        return _decided(False, (self.same(*pair) for pair in zip(golds, answers, strict=True)))

    def _sets(self, gold: Group, answer: Group) -> bool | None:
        """Every element of each is in the other; values that only one side names, with several names, keep order."""
        names = _names(gold), _names(answer)
        if min(names) == 0 and max(names) > 1:
            return self._in_order(_by_name(gold), _by_name(answer))
        golds, answers = tuple(dict.fromkeys(gold.items)), tuple(dict.fromkeys(answer.items))
        if self.symbolic is None and len(golds) * len(answers) > MAX_PAIRS:
            return None
        table = [[self.same(one, other) for other in answers] for one in golds]
        return _decided(False, (_decided(True, line) for line in [*table, *zip(*table, strict=True)]))

    def _mixed(self, gold: Node, answer: Node) -> bool | None:
        """Several against one: a vector has the entries of its tuple, a number equals a set of only its value."""
        group, other = (gold, answer) if isinstance(gold, Group) else (answer, gold)
        if not isinstance(group, Group) or not isinstance(other, Scalar):
            return False
        entries, ratio = vector(other.text), quotients(group)
        sides: tuple[Sequence[Node], Sequence[Node]]
        if entries is not None and group.brackets not in ("", ":", "≡") and len(entries) == len(group.items):
            sides = group.items, entries
        elif len(ratio) == 1:
            sides = ratio, [other]
        elif group.brackets in (":", "≡"):
            return False
        elif exact_number(split_unit(other.text)[0]) is None:
            return self._ask(gold, answer, self.tolerance)
        elif group.brackets or _names(group) > 1:
            return False
        else:
            sides = group.items, [other] * len(group.items)
        return self._in_order(*(sides if group is gold else sides[::-1]))

    def _scalar(self, gold: str, answer: str) -> bool | None:
        (gold, gold_unit), (answer, answer_unit) = split_unit(gold), split_unit(answer)
        units = {gold_unit, answer_unit}
        if "degree" in units <= {"degree", "radian", ""} and (r"\pi" in gold) != (r"\pi" in answer):
            gold, answer = (
                rf"\frac{{{angle}\pi}}{{180}}" if unit == "degree" else angle
                for angle, unit in ((gold, gold_unit), (answer, answer_unit))
            )
            gold_unit = answer_unit = ""
        if gold_unit and answer_unit and gold_unit != answer_unit and units not in _ALIKE:
            return False
        percents = gold.endswith("%"), answer.endswith("%")
        if (gold_unit and percents[1]) or (answer_unit and percents[0]):
            return False
        if compact(gold) == compact(answer):
            return True
        if _PROSE.search(unwrap(gold)) or _PROSE.search(unwrap(answer)):
            return unwrap(gold).casefold().split() == unwrap(answer).casefold().split()
        if gold.isalpha() and answer.isalpha() and gold.casefold() == answer.casefold():
            return False  # A and a are two variables; Math-Verify reads both in lower case
        numbers = exact_number(gold), exact_number(answer)
        if numbers[0] is not None and numbers[1] is not None:
            return equal_numbers(numbers[0], numbers[1], self.tolerance)
        if _SUBSCRIPTED.match(gold) or _SUBSCRIPTED.match(answer):
            return _same_based(gold, answer)
        return self._expressions(gold, answer, percents)

    def _expressions(self, gold: str, answer: str, percents: tuple[bool, bool]) -> bool | None:
        """The engine's verdict, p% as p and then, where only one side has the sign, as p/100."""
        if self.symbolic is None:
            return None
        gold, answer = (unwrap(side).removesuffix("%") for side in (gold, answer))
        if self.symbolic(gold, answer, self.tolerance):
            return True
        gold = rf"\frac{{{gold}}}{{100}}" if percents[0] else gold
        answer = rf"\frac{{{answer}}}{{100}}" if percents[1] else answer
        return percents[0] != percents[1] and self.symbolic(gold, answer, self.tolerance)

    def _ask(self, gold: Node, answer: Node, tolerance: float | None) -> bool | None:
        return None if self.symbolic is None else self.symbolic(unwrap(gold.text), unwrap(answer.text), tolerance)


def _stated(node: Node, other: Node, is_gold: bool = False) -> Node:
    r"""The value of ``a + b = 5`` where ``other`` has no such left side; a gold answer with x, y, z is a curve."""
    if not isinstance(node, Chain) or len(node.items) != 2 or isinstance(other, Chain | Equation):
        return node
    left, value = node.items
    if isinstance(left, Scalar):
        compound = _OPERATOR.search(left.text) and len(set(_NAME.findall(left.text)) - {""}) > 1
    else:
        compound = isinstance(left, Group) and left.brackets == ":"
    known = not any(letters(leaf.text) or leaf.text == "0" for leaf in leaves(value))  # x + y - 3 = 0 is a line
    return value if known and compound and not (is_gold and _CURVE.search(node.text)) else node


def _names(group: Group) -> int:
    """How many names the elements of a set have."""
    return 0 if group.brackets else len({item.name for item in group.items if isinstance(item, Equation)})


def _by_name(group: Group) -> Sequence[Node]:
    """The values of a set in the order of the alphabet, where their names are letters in a row, as x, y and z."""
    names = {item.name: item for item in group.items if isinstance(item, Equation)}
    in_a_row = len(names) == len(group.items) and "".join(sorted(names)) in _ALPHABET
    return [names[name] for name in sorted(names)] if in_a_row else group.items


def _same_based(gold: str, answer: str) -> bool:
    """Numbers in a base: the gold answer's digits, with its base or none; a base that it does not ask for counts."""
    wanted, found = based_number(gold), based_number(answer)
    if wanted is not None:
        return wanted == found or (found is None and compact(answer).lstrip("0") == wanted[0])
    number = exact_number(gold)
    return number is not None and found is not None and number.value == int(*found)


def _decided(by: bool, verdicts: Iterable[bool | None]) -> bool | None:
    """Whether all verdicts are right (decided by a False), or any is (by a True); None where an unknown one matters."""
    unknown = False
    for value in verdicts:
        if value is by:
            return by
        unknown = unknown or value is None
    return None if unknown else not by
