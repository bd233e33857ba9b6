"""The few cases of a product that the default tier runs."""

from itertools import product

import pytest
from pairwise import pairs_of, pairwise, product_cases


@pytest.mark.parametrize(
    "cases",
    [
        list(product("ab", range(5), (1, 2, 4), (False, True))),
        [case for case in product(range(3), range(3), range(3), range(2)) if sum(case) % 3],
        [(0, 0), (1, 1), (2, 0)],
        [("alone",)],
    ],
)
def test_every_pair_of_values_is_in_a_chosen_case(cases):
    chosen = pairwise(cases)
    assert set(chosen) <= set(cases) and chosen == sorted(chosen, key=cases.index) == pairwise(cases)
    assert set().union(*map(pairs_of, chosen)) == set().union(*map(pairs_of, cases))


def test_few_are_chosen_of_a_product():
    cases = list(product("ab", range(5), (1, 2, 4), (False, True)))
    assert 5 * 3 <= len(pairwise(cases)) <= 18 < len(cases)


def test_the_others_are_marked_full():
    marked = [one for one in product_cases("ab", range(5), (1, 2, 4)) if one.marks]
    assert {mark.name for one in marked for mark in one.marks} == {"full"}
    assert len(marked) == 30 - len(pairwise(list(product("ab", range(5), (1, 2, 4)))))
