"""The buffer against lists of dictionaries, over random sequences of operations."""

import random

import pytest
from buffer_game import Game, noted
from plain_buffer import bfloat16

CHUNKS, SEQUENCES, OPERATIONS = 8, 100, 24


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_operations_agree_with_lists_of_dictionaries(chunk):
    for sequence in range(SEQUENCES):
        rng = random.Random(f"{chunk}/{sequence}")
        game = Game(rng)
        names = ["add", "add", "select", "fetch", "select", "sample", "save", "load", "advance"]
        with noted(f"sequence {chunk}/{sequence}", game) as done:
            for _ in range(OPERATIONS):
                done.append(rng.choice(names))
                getattr(game, done[-1])()
            game.check()


def test_the_model_rounds_like_the_definition():
    # 1 + 2**-8 is halfway between 1 (ends in 0) and 1 + 2**-7 (ends in 1); 1 + 3 * 2**-8 between that and 1 + 2**-6
    assert [bfloat16(v) for v in (1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20)] == [1.0, 1 + 2**-6, 1 + 2**-7]
