"""What stops or warns a run."""

import math

import pytest
import torch

from repo_verl.config import RepoConfig
from repo_verl.replay import prompt_key
from repo_verl.trainer.guards import (
    NonFiniteError,
    bad_rows,
    not_finite,
    refuse_scores,
    refuse_skipped,
    stop_update,
)
from repo_verl.trainer.run_warnings import DriftWatch, warn_missing


def nested(*rows):
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def test_positions_of_values_that_are_not_finite():
    assert not_finite(torch.tensor([1.0, math.nan, 0.0, math.inf, -math.inf])) == [1, 3, 4]
    assert not_finite(torch.zeros(0)) == []


def test_scores_name_the_first_rows_and_count_the_others():
    refuse_scores([], 4)
    with pytest.raises(NonFiniteError, match=r"step 4: .* for 5 row\(s\) \(a; b; c; and 2 more\): fix it"):
        refuse_scores(["a", "b", "c", "d", "e"], 4)
    with pytest.raises(NonFiniteError, match=r"for 1 row\(s\) \(a\): fix it"):
        refuse_scores(["a"], 4)


def test_missing_rows_are_said(caplog):
    warn_missing(0, 32, 4)
    assert not caplog.records
    warn_missing(3, 32, 4)
    [record] = caplog.records
    assert record.levelname == "WARNING" and "step 4: 3 of 32 responses are missing" in record.getMessage()


def test_only_tokens_that_count_are_looked_at():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    one = torch.tensor([[0.0, 1.0, math.nan], [math.inf, 0.0, 0.0], [math.nan, math.nan, math.nan]])
    other = torch.tensor([[0.0, math.nan, 0.0], [math.nan, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert bad_rows({"one": one, "other": other}, mask) == {1: "one", 0: "other"}
    assert bad_rows({"one": torch.full((3, 3), 3e38)}, torch.ones(3, 3, dtype=torch.bool)) == {}


def test_an_update_names_its_rows():
    data = {
        "prompts": nested([7, 8], [9], [5]), "responses": nested([1, 2, 3], [4], [6]),
        "repo_origin": torch.tensor([0, 1, 2]),
    }  # fmt: skip
    stop_update(data, {}, 0.5)
    with pytest.raises(NonFiniteError, match="before its optimizer step") as caught:
        stop_update(data, {1: "stored log-prob"}, math.nan)
    named = f"replayed row of prompt {prompt_key([9])} with 1 response tokens: stored log-prob)"
    assert "values are not finite in 1 row(s) (" + named in str(caught.value)
    with pytest.raises(NonFiniteError) as caught:
        stop_update(data, {}, math.inf)
    assert "the loss is inf (its KL or entropy term) in 3 row(s) (fresh row of prompt" in str(caught.value)
    assert f"fresh row of prompt {prompt_key([7, 8])} with 3 response tokens; replayed row" in str(caught.value)


def test_gradients_that_verl_skipped_stop_the_run():
    refuse_skipped(0, 3)
    with pytest.raises(NonFiniteError, match=r"step 3: the gradient of 2 optimizer step\(s\) was not finite"):
        refuse_skipped(2, 3)


def test_padding_is_named_last():
    data = {
        "prompts": nested([7], [8], [9]), "responses": nested([1], [2], [3]), "repo_origin": torch.tensor([2, 2, 0]),
    }  # fmt: skip
    with pytest.raises(NonFiniteError, match=r"in 3 row\(s\) \(fresh row .*; padding row .*; padding row "):
        stop_update(data, {0: "log-prob", 1: "log-prob", 2: "log-prob"}, math.nan)


def test_without_replay_all_rows_are_fresh():
    with pytest.raises(NonFiniteError, match=r"1 row\(s\) \(fresh row of prompt \w{32} with 2 response tokens: x\)"):
        stop_update({"prompts": nested([7, 8]), "responses": nested([1, 2])}, {0: "x"}, 0.0)


def watch(**settings):
    said = []
    return DriftWatch(RepoConfig(**settings), said.append), said


def test_each_limit_warns_once():
    drift, said = watch(warn_ratio=10.0, warn_ess=0.5, strategy="reward")
    drift.look(1, {"ratio_max_replayed": 10.0, "ess_replayed": 0.5})
    drift.look(2, {"ratio_max_replayed": 0.0, "ess_replayed": 0.0})  # nothing was replayed
    assert said == []
    drift.look(3, {"ratio_max_replayed": 10.5, "ess_replayed": 0.5})
    assert (
        len(said) == 1
        and "step 3: a replayed token's ratio reached 10.5, above algorithm.repo.warn_ratio=10" in said[0]
    )
    assert "set algorithm.repo.max_age or algorithm.repo.strategy=recency" in said[0]
    drift.look(4, {"ratio_max_replayed": 99.0, "ess_replayed": 0.25})
    assert len(said) == 2 and "step 4: replayed rows have an effective sample size of 0.25 of them" in said[1]
    drift.look(5, {"ratio_max_replayed": 99.0, "ess_replayed": 0.1})
    assert len(said) == 2


def test_the_advice_fits_the_settings():
    drift, said = watch(max_age=5)
    drift.look(1, {"ratio_max_replayed": 1e6, "ess_replayed": 1.0})
    assert "max_age below 5, or" in said[0] and "strategy" not in said[0]


def test_null_never_warns():
    drift, said = watch(warn_ratio=None, warn_ess=None)
    drift.look(1, {"ratio_max_replayed": 1e9, "ess_replayed": 1e-9})
    assert said == []
