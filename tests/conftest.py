"""Two tiers: by default the tests that take a quarter of an hour, with ``--all`` every one but those marked ``gpu``.

A test marked ``full`` belongs to ``--all`` only, and fuzz tests take 1/20 of their inputs without it. What was left
out is said at the end.
"""

import os

import pytest

FUZZ_SHARE = "REPO_VERL_FUZZ_SHARE"
LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also the tests marked full, and all inputs of fuzz tests")


def pytest_configure(config):
    config.stash[LEFT_OUT] = 0
    os.environ.setdefault(FUZZ_SHARE, "1" if config.getoption("--all") else "0.05")


def pytest_itemcollected(item):
    if item.get_closest_marker("e2e"):
        item.add_marker("serial")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if config.getoption("--all"):
        return
    full = [item for item in items if item.get_closest_marker("full")]
    config.stash[LEFT_OUT] = len(full)
    config.hook.pytest_deselected(items=full)
    items[:] = [item for item in items if not item.get_closest_marker("full")]


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a worker of pytest-xdist tells the process that reports
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[LEFT_OUT]:
        terminalreporter.write_line(
            f"{config.stash[LEFT_OUT]} tests marked full were left out and fuzz tests took {os.environ[FUZZ_SHARE]} of "
            "their inputs: bash run_scripts/test.sh --all runs everything"
        )
