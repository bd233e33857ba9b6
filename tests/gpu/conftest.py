"""The device of these tests: a GPU, or by hand (``REPO_VERL_GPU_TESTS=cpu``) the CPU backend."""

import os

import pytest


@pytest.fixture(scope="session")
def device():
    """``cuda`` or, by hand, ``cpu``; a machine without a GPU fails in one sentence."""
    import torch

    chosen = os.environ.get("REPO_VERL_GPU_TESTS", "cuda")
    if chosen == "cuda" and not torch.cuda.is_available():
        pytest.fail(
            "tests/gpu needs a CUDA device and torch finds none: run it on a machine with one (docs/gpu.md).",
            pytrace=False,
        )
    return chosen
