r"""Synthetic arithmetic for laptop runs: ``17+26-8=?``, answer in ``\boxed{}``.

Problems are drawn without repetition from all problems of a form, so that the splits share none.
"""

import random
import re
from collections.abc import Mapping
from itertools import islice

from data_prep.records import DataSet, read_item

MIXTURES = {
    "sums": ("a+b", "a-b"),
    "mixed": ("a+b", "a+b-c", "a*b", "a*b+c"),
}
"""Forms that draw from several, each in turn."""

FORMS = ("a+b", "a-b", "a+b-c", "a*b", "a*b+c", *MIXTURES)

MAX_DIGITS = 1000
"""Products of more could have more digits than Python turns into text."""


def problems(form: str, digits: int, count: int, seed: int) -> list[str]:
    """Distinct problems in a random order that the seed decides; the first n of a larger drawing are the drawing of n.

    Raises: ValueError if the form is unknown, digits or count is out of range, or there are not ``count`` problems.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r} is unknown; use one of {', '.join(FORMS)}")
    if not 1 <= digits <= MAX_DIGITS or count < 1:
        raise ValueError(f"digits={digits} must be from 1 to {MAX_DIGITS}, and count={count} 1 or more")
    forms = MIXTURES.get(form, (form,))
    operands = 10**digits - 10 ** (digits - 1)
    existing = min(operands ** (1 + len(re.findall(r"[+*-]", name))) for name in forms) * len(forms)
    if count > existing:
        raise ValueError(
            f"count={count} is more than the {existing} problems of form {form!r} with digits={digits}: raise digits"
        )
    rng = random.Random(f"{form} {digits} {seed}")
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        name = forms[len(drawn) % len(forms)]
        problem = re.sub("[abc]", lambda _: str(rng.randrange(10 ** (digits - 1), 10**digits)), name)
        drawn[problem + "=?"] = None
    return list(drawn)


def solve(problem: str) -> int:
    """The value of a problem of the form ``17+26-8=?``, products first.

    Example:
        >>> solve("17+26-8=?"), solve("9-2*3=?")
        (35, 3)
    """
    total = 0
    for sign, term in re.findall(r"([+-]?)([\d*]+)", problem.removesuffix("=?")):
        product = 1
        for factor in term.split("*"):
            product *= int(factor)
        total += -product if sign == "-" else product
    return total


def records(form: str, digits: int, sizes: Mapping[str, int], seed: int) -> dict[str, list[dict[str, str]]]:
    """The records of the splits that have a size; one drawing cut in pieces, so that no problem is in two of them."""
    for split, size in sizes.items():
        if size < 0:
            raise ValueError(f"--{split}-size {size}: must be 0 or more")
    drawn = iter(problems(form, digits, sum(sizes.values()), seed))
    return {
        split: [{"problem": problem, "answer": str(solve(problem))} for problem in islice(drawn, size)]
        for split, size in sizes.items()
        if size
    }


SET = DataSet("arithmetic", read_item, "train")
