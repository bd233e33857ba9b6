"""The tiny base models: tokenizer, batches, and a warm-up that stops where it should."""

import random
from collections import Counter

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_prep import cli
from repo_verl.cpu import tiny, tiny_warmup
from repo_verl.cpu.tiny import build_model, build_tokenizer
from repo_verl.cpu.tiny_warmup import Example

TEXTS = [
    "17+26=?",
    "Is \\(GL_5(\\mathbb{R})\\) a group?\n\nSo \\boxed{\\frac{1}{2}} it is.",
    "naïve — 数学 \U0001d53d\tend ",
    "  two  spaces , and . stops !",
]
CHAT = [{"role": "user", "content": "17+26=?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def examples(tokenizer, count, gold="Yes"):
    prompts = [f"Is {n} even?" for n in range(count)]
    rows = [{"prompt": [{"role": "user", "content": p}], "reward_model": {"ground_truth": gold}} for p in prompts]
    return tiny_warmup.read_examples(rows, tokenizer)


@pytest.fixture
def yes_no_file(tmp_path):
    source = tmp_path / "source.jsonl"
    source.write_text("".join(f'{{"prompt": "Is {n} even?", "ground_truth": "Yes"}}\n' for n in range(16)))
    assert cli.main(["deepmath", "--input", str(source), "--output", str(tmp_path), "--quiet"]) == 0
    return tmp_path / "deepmath_train.parquet"


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_survives_the_tokenizer(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert None not in ids and max(ids) < len(tokenizer)


def test_vocabulary_is_bytes_specials_and_the_box(tokenizer):
    assert len(tokenizer) == 256 + 4 + 1
    assert len(tokenizer("\\boxed{", add_special_tokens=False)["input_ids"]) == 1
    assert len(tokenizer("\\boxed", add_special_tokens=False)["input_ids"]) == 6
    assert build_model(tokenizer).config.vocab_size == len(tokenizer)


def test_chat_template_marks_turns(tokenizer):
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == "<|user|>17+26=?"
    answered = [*CHAT, {"role": "assistant", "content": "43"}, *CHAT]
    text = tokenizer.apply_chat_template(answered, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>17+26=?<|assistant|>43<eos><|user|>17+26=?<|assistant|>"
    assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 7 + 2 + 7 + 5


def test_saved_tokenizer_loads_as_verl_loads_it(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    build_model(tokenizer, hidden_size=16, layers=1, heads=2).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, "<|user|>a<|assistant|>b<eos><pad>"]:
        assert (
            loaded(text, add_special_tokens=False)["input_ids"]
            == tokenizer(text, add_special_tokens=False)["input_ids"]
        )
        assert loaded(text)["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.apply_chat_template(CHAT, tokenize=False) == tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert (loaded.pad_token_id, loaded.eos_token_id, len(loaded)) == (256, 257, len(tokenizer))
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.eos_token_id == loaded.eos_token_id


def test_model_size_is_that_of_a_laptop(tokenizer):
    assert 500_000 < sum(p.numel() for p in build_model(tokenizer).parameters()) < 3_000_000


def test_collate_labels_the_response_only(tokenizer):
    rows = [Example([258, 49, 259], "7"), Example([258, 259], "12")]
    ids, labels = tiny_warmup.collate(rows, ["7", "12"], tokenizer)
    box, seven, one, two, brace, eos, pad = 260, *tokenizer("712}")["input_ids"], 257, 256
    assert ids.tolist() == [[258, 49, 259, box, seven, brace, eos], [258, 259, box, one, two, brace, eos]]
    assert labels.tolist() == [[-100] * 3 + [box, seven, brace, eos], [-100] * 2 + [box, one, two, brace, eos]]
    ids, labels = tiny_warmup.collate(rows, ["7", "1"], tokenizer)
    assert ids[1].tolist() == [258, 259, box, one, brace, eos, pad] and labels[1, -1] == -100


def test_words_are_learnt_by_share_not_by_prompt(tokenizer):
    rows = examples(tokenizer, 6, "yes") + examples(tokenizer, 2, "False")
    said = Counter(tiny_warmup.sampler("yes-no", rows)(rows * 2500, random.Random(0)))
    shares = {word: said[word] / 20_000 for word in tiny_warmup.WORDS}
    wanted = {"Yes": 0.125 + 0.375, "No": 0.125, "True": 0.125, "False": 0.125 + 0.125}
    assert all(abs(shares[word] - wanted[word]) < 0.02 for word in wanted), shares


def test_arithmetic_is_measured_on_problems_it_did_not_learn(tmp_path, tokenizer):
    rows = [Example([n], str(n)) for n in range(600)]
    train, held_out = tiny.split_examples(rows, "arithmetic", tmp_path, seed=3)
    assert (len(train), len(held_out)) == (344, 256)
    assert {e.gold for e in train}.isdisjoint(e.gold for e in held_out)
    with pytest.raises(ValueError, match="has 511 rows, want 512 or more"):
        tiny.split_examples(rows[:511], "arithmetic", tmp_path)


def test_batches_are_epochs_in_new_orders():
    rows = [Example([n], str(n)) for n in range(10)]
    drawn = tiny_warmup._batches(rows, 5, random.Random(0))
    epochs = [[e.gold for e in next(drawn)] + [e.gold for e in next(drawn)] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(e.gold for e in rows)
    assert epochs[0] != epochs[1]


def scripted(monkeypatch, *accuracies):
    """Measurements that come as written; every one of them fully boxed."""
    remaining = iter(accuracies)
    monkeypatch.setattr(tiny_warmup, "measure", lambda *_: (next(remaining), 1.0))


def short_warm_up(tokenizer, target, max_seconds=300.0):
    torch.manual_seed(0)
    model = build_model(tokenizer, hidden_size=16, layers=1, heads=2)
    rows = examples(tokenizer, 8)
    answers = tiny_warmup.sampler("arithmetic", rows)
    result = tiny_warmup.warm_up(model, tokenizer, rows, rows, answers, target, 0, 4, max_seconds, measure_every=2)
    return result, model


def test_warm_up_stops_a_fifth_into_the_band(monkeypatch, tokenizer):
    scripted(monkeypatch, 0.1, 0.19, 0.21, 0.3)
    result, _ = short_warm_up(tokenizer, (0.15, 0.40))
    assert (result["steps"], result["accuracy"]) == (6, 0.21)


def test_a_model_past_the_band_goes_back_and_on(monkeypatch, tokenizer):
    scripted(monkeypatch, 0.1, 0.9, 0.3)
    result, _ = short_warm_up(tokenizer, (0.15, 0.40))
    assert (result["steps"], result["accuracy"]) == (6, 0.3)


def test_a_band_not_reached_in_time_says_what_to_do(monkeypatch, tokenizer):
    scripted(monkeypatch, 0.0)
    with pytest.raises(
        RuntimeError, match="accuracy is 0.000, target 0.15-0.4, and 1.000 are boxed: raise --max-seconds"
    ):
        short_warm_up(tokenizer, (0.15, 0.40), max_seconds=0.0)


def test_the_same_seed_makes_the_same_weights(monkeypatch, tokenizer):
    made = []
    for _ in range(2):
        scripted(monkeypatch, 0.0, 0.3)
        made.append(short_warm_up(tokenizer, (0.15, 0.40))[1].state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_measure_counts_right_and_boxed(tokenizer, monkeypatch):
    model = build_model(tokenizer, hidden_size=16, layers=1, heads=2)
    says = ["\\boxed{Yes}<eos>", "\\boxed{No}<eos>", "Yes<eos>", "so \\boxed{Yes}<eos>"]
    responses = tokenizer(says, padding=True, padding_side="right", return_tensors="pt", add_special_tokens=False)
    monkeypatch.setattr(model, "generate", lambda input_ids, **_: torch.cat([input_ids, responses["input_ids"]], dim=1))
    accuracy, boxed = tiny_warmup.measure(model, tokenizer, examples(tokenizer, 4))
    assert (accuracy, boxed) == (0.5, 0.5)


def test_options_that_cannot_work_are_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="task='poems' is unknown"):
        tiny.make_tiny("poems", tmp_path, tmp_path, target=(0.1, 0.4))
    with pytest.raises(ValueError, match="target="):
        tiny.make_tiny("yes-no", tmp_path, tmp_path, target=(0.4, 0.1))
    with pytest.raises(SystemExit, match="2"):
        tiny.main(["--task", "poems", "--data", "x", "--output", "y"])
    assert "invalid choice: 'poems'" in capsys.readouterr().err


def test_yes_no_from_file_to_folder(yes_no_file, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "build_model", lambda t: build_model(t, hidden_size=32, layers=1, heads=2))
    content = tiny.make_tiny("yes-no", yes_no_file, tmp_path / "model", target=(0.0, 1.0))
    assert content["boxed"] >= 0.95 and 0.2 <= content["accuracy"] <= 1.0 and content["samples"] == 256
    assert len(pq.read_table(yes_no_file)) == 16
    assert {"model.safetensors", "tokenizer.json", "tiny.json"} <= {p.name for p in (tmp_path / "model").iterdir()}


def test_a_missing_file_is_one_line_on_stderr(tmp_path, capsys):
    flags = ["--task", "arithmetic", "--data", str(tmp_path / "no.parquet"), "--output", str(tmp_path / "m")]
    assert tiny.main(flags) == 2
    assert "no.parquet" in capsys.readouterr().err
