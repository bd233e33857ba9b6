"""Warnings on the size of the buffer."""

import logging

import pytest

from repo_verl.config import RepoConfig
from repo_verl.trainer.run_warnings import GIB, BufferWatch

CALM = {"prompts": 10, "rows": 20, "tokens": 30}


def watch(measured=8 * GIB, epoch=10, **settings):
    asked = []

    def measure():
        asked.append(1)
        if isinstance(measured, Exception):
            raise measured
        return measured

    return BufferWatch(RepoConfig(**settings), epoch, measure), asked


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_half_of_the_memory_that_was_free_is_one_warning(caplog):
    looked, asked = watch(8 * GIB)
    looked.look({**CALM, "bytes": int(2 * GIB)}, 0)  # 10 GiB in all
    looked.look({**CALM, "bytes": int(5 * GIB) - 1}, 0)
    assert said(caplog) == []
    for size in (5, 6):
        looked.look({**CALM, "bytes": int(size * GIB)}, 0)
    (line,) = said(caplog)
    assert "takes 5.0 GiB (30 response tokens), half of the 10.0 GiB" in line and "algorithm.repo.max_tokens" in line
    assert asked == [1], "measured once"


def test_a_buffer_that_was_restored_may_be_half_of_it_at_once(caplog):
    looked, _ = watch(1 * GIB)
    looked.look({**CALM, "bytes": int(1 * GIB)}, 0)
    assert len(said(caplog)) == 1


@pytest.mark.parametrize("settings", [{"storage": "distributed"}, {"strategy": "none"}])
def test_rows_that_lie_elsewhere_or_nowhere_are_not_watched(settings, caplog):
    looked, asked = watch(1.0, **settings)
    looked.look({**CALM, "bytes": int(5 * GIB)}, 0)
    assert said(caplog) == [] and asked == []


@pytest.mark.parametrize("error", [OSError("no /proc"), ValueError("min() of nothing")])
def test_memory_that_can_not_be_measured_is_one_line_and_no_fault(error, caplog):
    looked, asked = watch(error)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            looked.look({**CALM, "bytes": int(5 * GIB)}, 0)
    assert asked == [1] and caplog.text.count("free memory can't be measured") == 1 and said(caplog) == []


def test_a_bound_under_an_epoch_is_one_warning(caplog):
    looked, _ = watch(epoch=11, max_tokens=30)
    looked.look({**CALM, "bytes": 1}, 0)
    looked.look({**CALM, "prompts": 11, "bytes": 1}, 2)
    assert said(caplog) == []
    for _ in range(2):
        looked.look({**CALM, "bytes": 1}, 1)
    (line,) = said(caplog)
    assert "algorithm.repo.max_tokens=30 holds 10 prompts, fewer than the 11 of an epoch" in line


def test_this_machine_has_memory():
    assert BufferWatch(RepoConfig(), 1)._measure() > 0
