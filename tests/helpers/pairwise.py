"""A few of all combinations that hold every pair of values: what the default tier runs of a large product."""

from itertools import combinations, product

import pytest


def pairs_of(case):
    """Every pair of places of a case, with its values."""
    return {(i, j, case[i], case[j]) for i, j in combinations(range(len(case)), 2)}


def pairwise(cases):
    """The chosen cases, in their order: every pair of values that occurs in a case occurs in a chosen one.

    Greedy and deterministic: the next one chosen is the first of those that hold most of the pairs still missing.

    Args:
        cases: tuples of one length, of hashable values.
    """
    held = {case: pairs_of(case) for case in cases}
    missing, chosen = set().union(*held.values()), set()
    while missing:
        best = max(cases, key=lambda case: len(held[case] & missing))
        missing -= held[best]
        chosen.add(best)
    return [case for case in cases if case in chosen]


def product_cases(*factors):
    """All combinations as parameters; those that :func:`pairwise` leaves out are marked ``full``."""
    cases = list(product(*factors))
    chosen = set(pairwise(cases))
    return [
        pytest.param(*case, id="-".join(map(str, case)), marks=[] if case in chosen else [pytest.mark.full])
        for case in cases
    ]
