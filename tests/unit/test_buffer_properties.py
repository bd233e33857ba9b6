"""The buffer against its model over 10,000 sequences of operations that hypothesis finds and shrinks (500 by default).

The sequences are the same in every run; ``REPO_VERL_SEQUENCES=N pytest tests/unit/test_buffer_properties.py`` draws
those of another number, 0 being the usual ones.
"""

import os
import random
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from buffer_game import Game, noted
from fuzzing import portion
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

CHUNKS, SEQUENCES, OPERATIONS = 8, 1250, 20
NAMES = ["add", "add", "select", "fetch", "select", "sample", "save", "load", "advance", "save_files",
         "load_files", "damage"]  # fmt: skip
NUMBER = int(os.environ.get("REPO_VERL_SEQUENCES", "0"))
SEEDS = st.integers(0, 1 << 32)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_sequences_of_operations_agree_with_the_model(chunk):
    @seed(CHUNKS * NUMBER + chunk)
    @settings(max_examples=portion(SEQUENCES), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(SEEDS, st.lists(st.tuples(st.sampled_from(NAMES), SEEDS), min_size=5, max_size=OPERATIONS))
    def agree(setting, operations):
        game = Game(random.Random(f"{chunk}/{setting}"))
        with tempfile.TemporaryDirectory() as folder, noted(f"chunk {chunk}", game) as done:
            for name, content in operations:
                done.append((name, content))
                game.rng.seed(f"{chunk}/{content}")
                arguments = [Path(folder) / "prompt_replay"] if name == "save_files" else []
                getattr(game, name)(*arguments)
            game.check()

    with mock.patch.object(os, "fsync"):
        agree()
