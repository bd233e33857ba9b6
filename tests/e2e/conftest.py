"""What end-to-end tests share."""

import pytest
from recorded_jobs import Player


@pytest.fixture(scope="session")
def player(tmp_path_factory):
    """Plays recorded rollouts for all modules: one base model and, but for scenarios of their own, one Ray session."""
    made = Player(tmp_path_factory.mktemp("player"))
    yield made
    made.end()
