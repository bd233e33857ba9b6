"""``algorithm.repo.strategy=package.module:function``: what is refused, what it gets, what it may give."""

import re
import sys
from pathlib import Path

import numpy as np
import own_strategies
import pytest
from buffer_game import sign
from hypothesis import given
from hypothesis import strategies as st

from repo_verl.cli import main
from repo_verl.config import RepoConfig, RepoConfigError
from repo_verl.replay import PromptReplayBuffer, Record
from repo_verl.replay.checkpoint import load_buffer, read_meta, save_buffer
from repo_verl.replay.own_strategy import StrategyError, load_function, pick
from repo_verl.trainer.run_warnings import describe_objective
from repo_verl.trainer.validation import check_config

KEY = "ab" * 16


def buffer_with(strategy, scores=(0.5, 0.25, 1.0, 0.0), **changed):
    """Rows of one prompt, one a step from step 1 on."""
    settings = {"capacity": 8, "min_size": 1, "num_replay": 2, **changed}
    buffer = PromptReplayBuffer(strategy=strategy, **settings)
    rows = [Record.create([number], [-0.5], score, number + 1) for number, score in enumerate(scores)]
    buffer.add(KEY, [7], rows)
    return buffer


def replayed(buffer, step=9):
    return [row.score for row in buffer.sample(KEY, step)]


def ask(function, scores=(0.0, 1.0, 0.0, 1.0, 0.5), k=3):
    ages = np.arange(len(scores))[::-1] + 1
    return pick(function, "mine:f", KEY, np.array(scores), ages, k, np.random.default_rng(0))


def gives(result):
    return lambda scores, ages, k, rng: result


# --- what it picks ---------------------------------------------------------------------------------------------------


def test_the_function_decides():
    assert replayed(buffer_with("own_strategies:oldest")) == [0.5, 0.25], "sorted by the buffer: it gave [1, 0]"
    assert replayed(buffer_with("own_strategies:oldest"), step=3) == [0.5, 0.25], "steps 1 and 2 are earlier"
    assert replayed(buffer_with("own_strategies:oldest", max_age=6)) == [1.0, 0.0], "at step 9, of steps 3 and 4"
    assert replayed(buffer_with("recency")) == [1.0, 0.0]


def test_it_is_asked_where_few_rows_are_held_too():
    assert replayed(buffer_with("recency", scores=(0.5, 0.25))) == [0.5, 0.25]
    assert replayed(buffer_with("own_strategies:lowest_of_old", scores=(0.5, 0.25))) == [0.5]


def test_rows_used_up_are_not_offered():
    buffer = buffer_with("own_strategies:oldest", max_uses=1)
    assert [replayed(buffer) for _ in range(3)] == [[0.5, 0.25], [1.0, 0.0], []]


def test_it_is_not_asked_for_prompts_that_may_not_replay(monkeypatch):
    monkeypatch.setattr(own_strategies, "oldest", lambda scores, ages, k, rng: pytest.fail("asked"))
    assert replayed(buffer_with("own_strategies:oldest", min_size=5)) == []
    assert replayed(buffer_with("own_strategies:oldest", start_step=9)) == []
    assert replayed(buffer_with("own_strategies:oldest", max_age=2)) == []
    assert buffer_with("own_strategies:oldest").sample("cd" * 16, 9) == []


def test_what_it_is_given(monkeypatch):
    seen = []

    def spy(*values):
        seen.append(values)

    monkeypatch.setattr(own_strategies, "spy", spy, raising=False)
    buffer = buffer_with("own_strategies:spy", num_replay=3, max_age=8)
    assert replayed(buffer, step=10) == [] and replayed(buffer, step=3) == []
    (scores, ages, k, rng), (fewer, _, at_most, same) = seen
    assert scores.tolist() == [0.25, 1.0, 0.0] and scores.dtype == np.float64
    assert ages.tolist() == [8, 7, 6] and ages.dtype == np.int64
    assert (k, type(k), fewer.tolist(), at_most) == (3, int, [0.5, 0.25], 2)
    assert isinstance(rng, np.random.Generator) and rng is same
    for values in (scores, ages):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 5


def test_a_function_that_writes_stops_the_run_and_cannot_reach_the_buffer(monkeypatch):
    def writes(scores, ages, k, rng):
        scores *= 0

    def insists(scores, ages, k, rng):
        for values in (scores, ages):
            values.flags.writeable = True
            values[:] = 77
        return [0]

    given = np.array([1.0, 2.0])
    with pytest.raises(StrategyError, match=r"strategy=mine:f failed for prompt (ab)+, of which 2 rows .*read-only"):
        pick(writes, "mine:f", KEY, given, np.array([1, 1]), 1, np.random.default_rng(0))
    assert pick(insists, "mine:f", KEY, given, np.array([1, 1]), 1, np.random.default_rng(0)).tolist() == [0]
    assert given.tolist() == [1.0, 2.0] and given.flags.writeable
    monkeypatch.setattr(own_strategies, "insists", insists, raising=False)
    buffer = buffer_with("own_strategies:insists")
    assert replayed(buffer) == [0.5]
    assert [(row.score, row.step) for row in buffer.rows(KEY)] == [(0.5, 1), (0.25, 2), (1.0, 3), (0.0, 4)]


def test_a_function_with_a_parameter_fresh_scores_gets_those_of_the_step(monkeypatch):
    seen = []

    def spy(scores, ages, k, rng, fresh_scores):
        seen.append(fresh_scores)
        return [len(seen) - 1]

    monkeypatch.setattr(own_strategies, "spy", spy, raising=False)
    buffer, given = buffer_with("own_strategies:spy"), np.array([1, 0], dtype=np.float32)
    chosen = buffer.select_batch([KEY, "cd" * 16, KEY], 9, [given, np.zeros(1), np.array([0.5])])
    assert [one.scores.tolist() for one in chosen] == [[0.5], [], [0.25]]
    assert [one.tolist() for one in seen] == [[1.0, 0.0], [0.5]] and seen[0].dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        seen[0][0] = 5
    assert replayed(buffer) == [1.0] and seen[2] is None, "not known outside of training"


def test_the_examples_of_the_page_choose_what_they_say():
    page = (Path(__file__).parents[2] / "docs" / "howto" / "own_strategy.md").read_text()
    found = {}
    for text in re.findall(r'```python title="\w+\.py"\n(.*?)```', page, re.DOTALL):
        exec(text, found)
    scores = np.array([1.0, 0.0, 0.0, 1.0, 0.5, 0.0])
    given = scores, np.arange(6, 0, -1), 4, np.random.default_rng(0)
    assert pick(found["newest_and_best"], "mine:f", KEY, *given).tolist() == [0, 3, 4, 5]
    assert pick(found["best_where_all_fail"], "mine:f", KEY, *given, np.zeros(8)).tolist() == [0, 3, 4, 5]
    for fresh in (np.array([0.0, 0.5]), None):
        assert pick(found["best_where_all_fail"], "mine:f", KEY, *given, fresh).tolist() == []


def test_fresh_scores_may_have_a_default_or_stand_by_name_alone(monkeypatch):
    for function in (own_strategies.best_where_all_fail, lambda s, a, k, r, *, fresh_scores=(): own_strategies.oldest):
        assert takes(function, monkeypatch) is function
    picked = pick(own_strategies.best_where_all_fail, "mine:f", KEY, np.array([0.0, 1.0]), np.array([2, 1]), 1,
                  np.random.default_rng(0), np.zeros(4))  # fmt: skip
    assert picked.tolist() == [1]
    assert ask(own_strategies.best_where_all_fail).tolist() == []


def test_the_four_other_values_stay_positional_beside_fresh_scores(monkeypatch):
    for function, shown in (
        (lambda scores, fresh_scores, k, rng: [0], r"\(scores, fresh_scores, k, rng\)"),
        (lambda scores, ages, k, fresh_scores: [0], r"\(scores, ages, k, fresh_scores\)"),
        (lambda scores, ages, k, rng, fresh_scores, /: [0], r"\(scores, ages, k, rng, fresh_scores, /\)"),
        (lambda scores, ages, k, rng, fresh_scores, more: [0], r"\(.*, more\)"),
    ):
        with pytest.raises(RepoConfigError, match=f"takes {shown}: it is called with four .* fresh_scores by name if"):
            takes(function, monkeypatch)


def takes(function, monkeypatch):
    monkeypatch.setattr(own_strategies, "tried", function, raising=False)
    return load_function("own_strategies:tried")


# --- what it may give ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "indices"),
    [
        ([4, 0], [0, 4]), ((2,), [2]), (np.array([3, 1, 2], dtype=np.uint8), [1, 2, 3]), ([np.int32(1)], [1]),
        (None, []), ([], []), ((), []), (np.empty(0), []), (np.empty(0, dtype=bool), []),
    ],
)  # fmt: skip
def test_good_results(result, indices):
    picked = ask(gives(result))
    assert picked.tolist() == indices and picked.dtype == np.intp


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ([0, 1, 2, 3], "returned 4 indices for prompt"),
        ([0, 5], "returned the index 5 for"),
        ([-1], "returned the index -1 for"),
        ([2, 1, 2], "returned the index 2 twice for"),
        ([0.0, 1.0], r"returned float64 of shape \(2,\) for"),
        (np.array([True, False, True, False, False]), r"bool of shape \(5,\) \(np.flatnonzero turns a mask into"),
        (np.array([[0, 1]]), r"returned int64 of shape \(1, 2\)"),
        (np.array(2), r"returned int64 of shape \(\)"),
        (2, "returned a value of type int"),
        ({0, 1}, "returned a value of type set"),
        ("01", "returned a value of type str"),
        ([0, [1]], "returned a list of uneven parts"),
        ([2**70], r"returned object of shape \(1,\)"),
        ([2**63], "returned the index 9223372036854775808"),
        ([None], r"returned object of shape \(1,\)"),
    ],
)
def test_bad_results_are_refused_in_one_line(result, said):
    with pytest.raises(StrategyError, match=said) as caught:
        ask(gives(result))
    text = str(caught.value)
    assert text.startswith("algorithm.repo.strategy=mine:f returned ") and "\n" not in text
    assert text.endswith(f"for prompt {KEY}: have it return up to k=3 different integers from 0 to 4, or nothing.")


@given(rows=st.integers(1, 6), k=st.integers(1, 8), result=st.lists(st.integers(-2, 8), max_size=8))
def test_only_subsets_pass(rows, k, result):
    good = len(result) <= min(k, rows) and len({*result}) == len(result) and all(0 <= i < rows for i in result)
    try:
        assert ask(gives(result), np.zeros(rows), k).tolist() == sorted(result) and good
    except StrategyError:
        assert not good


def test_an_exception_stops_the_run_and_is_its_cause(monkeypatch):
    def fails(scores, ages, k, rng):
        raise KeyError("no\nway" + "x" * 1000)

    monkeypatch.setattr(own_strategies, "fails", fails, raising=False)
    with pytest.raises(StrategyError, match="strategy=own_strategies:fails failed for prompt") as caught:
        replayed(buffer_with("own_strategies:fails"))
    text = str(caught.value)
    assert KEY in text and "4 rows" in text and "KeyError" in text and "\n" not in text and len(text) < 500
    assert isinstance(caught.value.__cause__, KeyError)


# --- which names are refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [":f", "f:", "a b:c", "a:b:c", "a:b.c", "a..b:c", ".a:b", "lambda:x", "a:class", "1a:b", "a-b:c", "a/b:c",
              "/tmp/a.py:f", "https://a:b", "a:b\n", "\ud800:x", "x" * 9000 + "::"],
)  # fmt: skip
def test_what_names_no_function_is_refused_without_an_import(value):
    with pytest.raises(RepoConfigError, match="names no function: write package.module:function") as caught:
        RepoConfig(strategy=value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@given(st.one_of(st.text(max_size=12), st.from_regex(r"[\w.]{0,6}:[\w.:]{0,6}")))
def test_any_text_is_a_setting_or_refused(text):
    try:
        known = RepoConfig(strategy=text).strategy == text
    except RepoConfigError as error:
        known = False
        assert "\n" not in str(error)
    names = re.split(r"[.:]", text)
    if ":" in text and all(re.fullmatch(r"[a-z_]{7,}", name) for name in names):
        assert known == (text.count(":") == 1 and "." not in text.split(":")[1])


def test_a_setting_imports_nothing_and_counts_as_replay():
    config = RepoConfig(strategy="no_such_package.rules:f")
    assert config.active and config.to_dict()["strategy"] == "no_such_package.rules:f"
    assert "no_such_package" not in sys.modules
    with pytest.raises(RepoConfigError, match="num_replay=9 exceeds algorithm.repo.capacity=8"):
        RepoConfig(strategy="no_such_package.rules:f", num_replay=9, capacity=8, min_size=8)
    with pytest.raises(RepoConfigError, match="use one of recency, .*, none or package.module:function"):
        RepoConfig(strategy="mine")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Modules of a user: ``good``, ``breaks``, ``ends``, ``needs``; what is imported is forgotten again."""
    folder = tmp_path / "own_rules"
    folder.mkdir()
    for name, text in {
        "__init__": "", "good": "def oldest(scores, ages, k, rng):\n    return [0]\n",
        "breaks": "raise ValueError('not\\nnow')", "ends": "import sys\nsys.exit(3)", "needs": "import nothing_such",
        "marks": f"open({str(tmp_path / 'marked')!r}, 'w').close()\ndef f(scores, ages, k, rng):\n    return [0]\n",
    }.items():  # fmt: skip
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "own_rules"]:
        del sys.modules[name]


REFUSED = {
    "own_rules.good:oldst": r"names what .*own_rules/good.py does not have: did you mean oldest\?",
    "own_rules.good:f": r"names what .*good.py does not have: define f\(scores, ages, k, rng\) there\.",
    "own_rules.gone:f": r"can't be imported in /.* \(ModuleNotFoundError: No module named 'own_rules.gone'\): install "
    "it, or put its folder on PYTHONPATH; in a Ray cluster that was started before, with .*env_vars.PYTHONPATH",
    "elsewhere.rules:f": r"\(ModuleNotFoundError: No module named 'elsewhere'\): install it, or put its folder",
    "own_rules.needs:f": r"No module named 'nothing_such'\): fix what `python -c 'import own_rules.needs'` shows",
    "own_rules.breaks:f": r"\(ValueError: not\\nnow\): fix what `python -c 'import own_rules.breaks'` shows",
    "own_rules.ends:f": r"\(SystemExit: 3\): fix what",
    "own_strategies:a_number": r"is of type float: name a function \(scores, ages, k, rng\)\.",
    "own_strategies:nothing_here": "does not have: define nothing_here",
    "own_strategies:forgets_ages": r"takes \(scores, k, rng\): it is called with four positional values",
}


@pytest.mark.parametrize("value", REFUSED)
def test_what_cannot_be_had_is_refused_before_ray(value, package):
    whole = {"algorithm": {"repo": {"strategy": value}}, "actor_rollout_ref": {"rollout": {"n": 2}}}
    for attempt in (lambda: check_config(whole), lambda: PromptReplayBuffer(strategy=value)):
        with pytest.raises(RepoConfigError, match=REFUSED[value]) as caught:
            attempt()
        text = str(caught.value)
        assert text.startswith(f"algorithm.repo.strategy={value} ") and "\n" not in text and len(text) < 600


def test_what_can_be_had_is_accepted(package, monkeypatch):
    whole = {"algorithm": {"repo": {"strategy": "own_rules.good:oldest"}}, "actor_rollout_ref": {"rollout": {"n": 2}}}
    repo = check_config(whole)
    assert "strategy=own_rules.good:oldest" in describe_objective(whole, repo)
    assert load_function(repo.strategy).__module__ == "own_rules.good"
    rule = type("Rule", (), {"__call__": lambda self, scores, ages, k, rng: [k - 1]})()
    monkeypatch.setattr(own_strategies, "called", rule, raising=False)
    assert replayed(buffer_with("own_strategies:called")) == [0.25], "any callable"


# --- saved buffers ---------------------------------------------------------------------------------------------------


def test_a_loaded_buffer_draws_what_the_saved_one_would_have(tmp_path):
    buffer = buffer_with("own_strategies:a_few", capacity=8, num_replay=4, scores=range(8))
    replayed(buffer)
    save_buffer(tmp_path / "saved", buffer, {})
    assert read_meta(tmp_path / "saved").settings["strategy"] == "own_strategies:a_few"
    drawn = [replayed(buffer) for _ in range(8)]
    twin = PromptReplayBuffer(strategy="own_strategies:a_few", capacity=8, min_size=1, num_replay=4, seed=7)
    load_buffer(tmp_path / "saved", twin)
    assert [replayed(twin) for _ in range(8)] == drawn
    other = PromptReplayBuffer(strategy="own_strategies:a_few", capacity=8, min_size=1, num_replay=4, seed=7)
    other.add(KEY, [7], buffer.rows(KEY))
    assert [replayed(other) for _ in range(8)] != drawn and len({len(rows) for rows in drawn}) > 2


def test_a_saved_name_is_never_imported(tmp_path, package, capsys):
    """As any setting of replay alone, the strategy of the buffer that loads holds."""
    saved = tmp_path / "global_step_3" / "prompt_replay"
    saved.parent.mkdir()
    save_buffer(saved, buffer_with("recency"), {})
    sign(saved, lambda fields: fields["settings"].update(strategy="own_rules.marks:f"))
    assert read_meta(saved).settings["strategy"] == "own_rules.marks:f"
    buffer = PromptReplayBuffer(capacity=8, min_size=1, num_replay=1, strategy="own_strategies:oldest")
    load_buffer(saved, buffer)
    assert buffer.settings["strategy"] == "own_strategies:oldest" and replayed(buffer) == [0.5]
    for options in ([], ["--verify"]):
        assert main(["buffer", "inspect", str(tmp_path), *options]) == 0
    assert "strategy=own_rules.marks:f" in capsys.readouterr().out
    assert not (tmp_path / "marked").exists() and "own_rules.marks" not in sys.modules
    PromptReplayBuffer(strategy="own_rules.marks:f")
    assert (tmp_path / "marked").exists(), "the mark works"
