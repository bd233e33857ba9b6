"""``repo-verl buffer inspect``."""

import json
import shutil

import numpy as np
from buffer_game import sign
from safetensors.numpy import load_file, save_file

from repo_verl.cli import main
from repo_verl.replay import PromptReplayBuffer, Record, prompt_key
from repo_verl.replay.checkpoint import save_buffer


def save(folder, steps=(1, 2, 4), ids=(5, 6, 7), capacity=4, **extra):
    buffer = PromptReplayBuffer(capacity=capacity, min_size=1, num_replay=1)
    for number in range(2):
        rows = [
            Record.create(ids, [-0.5] * len(ids), 1.0 if step == 1 else 0.0, step, parts={"acc": step / 2})
            for step in steps
        ]
        buffer.add(prompt_key([number, 99]), [number, 99], rows[: len(rows) - number])
    buffer.sample(prompt_key([0, 99]), 9)
    save_buffer(folder / "prompt_replay", buffer, extra, shard_bytes=1)
    return folder


def run(capsys, *arguments):
    status = main(["buffer", "inspect", *map(str, arguments)])
    output, errors = capsys.readouterr()
    return status, output, errors


def test_counts_ages_uses_and_scores_by_hand(tmp_path, capsys):
    folder = save(tmp_path / "global_step_6", effective_steps=3)
    status, output, errors = run(capsys, folder)
    assert (status, errors) == (0, "")
    lines = {line[:12].strip(): line[12:] for line in output.splitlines() if line[:1] != "r"}
    size = sum(path.stat().st_size for path in (folder / "prompt_replay").iterdir())
    assert lines["folder"] == str(folder / "prompt_replay")
    assert lines["held"] == "2 prompts, 5 rows, 15 response tokens"
    assert lines["on disk"].startswith(f"{size / 1e6:.1f} MB in 2 shards, checksums of shards not checked")
    assert lines["settings"].startswith("capacity=4, min_size=1, num_replay=1, strategy=recency")
    assert lines["extra"] == '{"effective_steps": 3}'
    # steps 1, 2, 4 and 1, 2: ages at step 6 are 5, 4, 2, 5, 4
    assert lines["steps"] == "1 to 4; ages at step 6: 4.0 on average, 5 at most"
    assert lines["uses"] == "0.20 on average, 1 at most; 80.0% of rows never"
    assert lines["per prompt"] == "2 to 3 rows, 2.5 on average; 0.0% are full"
    assert lines["per row"] == "3 to 3 tokens, 3.0 on average; 0.0% of rows have a mask"
    assert lines["score"] == "mean 0.4, std 0.4899; commonest 0 in 60.0%, 1 in 40.0%"
    assert lines["acc"] == "mean 1, std 0.5477; commonest 0.5 in 40.0%, 1 in 40.0%, 2 in 20.0%"


def test_the_newest_rows_come_as_token_ids_without_a_tokenizer(tmp_path, capsys):
    folder = save(tmp_path / "global_step_6", ids=range(40))
    lines = run(capsys, folder, "--rows", 2)[1].splitlines()[-7:]
    assert lines[0] == "the newest rows, as token ids: --tokenizer decodes them"
    assert lines[1] == f"row 2: step 4, score 0, uses 1, 40 tokens, prompt {prompt_key([0, 99])}"
    assert lines[2:4] == ["  prompt    0 99", f"  response  {' '.join(map(str, range(32)))} ... (8 more)"]
    assert lines[4].startswith("row 1: step 2, score 0, uses 0")
    assert "newest rows" not in run(capsys, folder, "--rows", 0)[1]
    run(capsys, folder, "--rows", 4)
    last = run(capsys, folder, "--rows", 99)[1].splitlines()[-3]
    assert last == f"row 3: step 1, score 1, uses 0, 40 tokens, prompt {prompt_key([1, 99])}"


def test_a_tokenizer_decodes_and_what_a_row_says_does_not_drive_the_terminal(tmp_path, capsys):
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"a\x1b[2J\x1b]0;x\x07\u202eb\r\nc\x9b1m\u2028": 0, "long ": 1}, "long "))
    words.decoder = decoders.Fuse()
    model = tmp_path / "model"
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(model)
    ids = [0] + [1] * 100
    folder = save(tmp_path / "global_step_6", ids=ids)
    for arguments in ([], ["--tokenizer", model]):
        if not arguments:
            shutil.copytree(model, folder / "actor" / "huggingface")
        status, output, _ = run(capsys, folder, "--rows", 1, *arguments)
        assert status == 0 and all(line.isprintable() for line in output.split("\n"))
        assert "decoded by" in output and "characters more)" in output
        assert r"a\x1b[2J\x1b]0;x\x07\u202eb\r\nc\x9b1m\u2028long long" in output


def test_a_bad_tokenizer_is_one_sentence_or_a_note(tmp_path, capsys):
    folder = save(tmp_path / "global_step_6")
    assert run(capsys, folder, "--tokenizer", tmp_path / "no")[::2] == (
        1, f"error: --tokenizer {tmp_path / 'no'} is no folder: name one that holds a saved tokenizer.\n"
    )  # fmt: skip
    place = folder / "actor" / "huggingface"
    place.mkdir(parents=True)
    (place / "tokenizer.json").write_text("{")
    (place / "config.json").write_text('{"model_type": "llama"}')
    status, output, _ = run(capsys, folder)
    assert status == 0 and f"as token ids, since {place} holds no tokenizer that can be loaded (" in output
    status, _, errors = run(capsys, folder, "--tokenizer", place)
    assert status == 1 and errors.count("\n") == 1 and "can't be loaded (" in errors


def test_remote_code_of_a_tokenizer_is_never_run(tmp_path, capsys):
    folder = save(tmp_path / "global_step_6")
    place = folder / "actor" / "huggingface"
    place.mkdir(parents=True)
    (place / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    names = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (place / "tokenizer_config.json").write_text(json.dumps(names))
    status, output, _ = run(capsys, folder)
    assert status == 0 and "holds no tokenizer that can be loaded" in output and not (tmp_path / "ran").exists()


def test_the_newest_step_of_a_run_is_shown(tmp_path, capsys):
    for step in (2, 10, 9):
        save(tmp_path / f"global_step_{step}", steps=(1, step))
    (tmp_path / "global_step_11").mkdir()
    (tmp_path / "global_step_x").mkdir()
    seen = {}
    for tracker in (None, "9", "11", "nonsense", "2\n"):
        if tracker is not None:
            (tmp_path / "latest_checkpointed_iteration.txt").write_text(tracker)
        seen[tracker] = run(capsys, tmp_path, "--rows", 0)[1].splitlines()[0].split("/")[-2]
    assert seen == {None: "global_step_10", "9": "global_step_9", "11": "global_step_10",
                    "nonsense": "global_step_10", "2\n": "global_step_2"}  # fmt: skip
    inner = run(capsys, tmp_path / "global_step_2" / "prompt_replay")[1]
    assert "ages at step 2: " in inner


def test_what_is_no_buffer_or_a_damaged_one_is_one_sentence(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "none", tmp_path / "prompt_replay"):
        status, output, errors = run(capsys, path)
        assert (status, output, errors.count("\n")) == (1, "", 1) and "replay buffer" in errors
    folder = save(tmp_path / "global_step_6") / "prompt_replay"
    assert run(capsys, folder, "--verify")[1].splitlines()[2].endswith("every checksum is right")
    path = folder / "rows-00001.safetensors"
    content = path.read_bytes()
    arrays = load_file(path)
    save_file({**arrays, "log_probs": arrays["log_probs"] - 1}, path)  # seen by --verify alone
    assert run(capsys, folder)[0] == 0
    status, _, errors = run(capsys, folder, "--verify")
    assert status == 1 and "rows-00001.safetensors has the checksum" in errors
    path.write_bytes(content[:-1])
    assert "has " in run(capsys, folder)[2] and run(capsys, folder)[0] == 1
    path.write_bytes(content)
    arrays = load_file(folder / "rows-00000.safetensors")
    for column, value, match in (
        ("score", np.zeros(3, dtype=np.float32), "missing or of another type"),
        ("score", np.array([np.nan, 0, 0]), "not finite"),
        ("row_offsets", np.array([0, 3, 6, 1 << 30]), "damaged"),
    ):
        path = folder / "rows-00000.safetensors"
        save_file({**arrays, column: value}, path)
        sign(
            folder,
            lambda fields: fields["shards"][0].update(bytes=(folder / fields["shards"][0]["file"]).stat().st_size),
        )
        status, _, errors = run(capsys, folder, "--rows", 9)
        assert status == 1 and match in errors and errors.count("\n") == 1, errors
    path.unlink()
    assert "can't be read" in run(capsys, folder)[2]


def test_a_prompt_in_two_shards_is_one_sentence(tmp_path, capsys):
    folder = save(tmp_path / "global_step_6") / "prompt_replay"
    shutil.copy(folder / "rows-00000.safetensors", folder / "rows-00001.safetensors")

    def twice(fields):
        fields["shards"][1].update({**fields["shards"][0], "file": "rows-00001.safetensors"})

    sign(folder, twice)
    for arguments in ([], ["--verify"]):
        status, _, errors = run(capsys, folder, *arguments)
        assert status == 1 and "a prompt is in two shards" in errors


def test_names_in_a_hostile_buffer_are_escaped_too(tmp_path, capsys):
    folder = save(tmp_path / "global_step_6") / "prompt_replay"
    sign(folder, lambda fields: fields.update({"part_names": ["\x1b[2J"], "extra": {"\x7f": "\x1b"}}))
    status, output, _ = run(capsys, folder)
    assert status == 0 and all(line.isprintable() for line in output.split("\n")) and r"\x1b[2J" in output
    sign(folder, lambda fields: fields.update({"\x1b[2J": 1}))
    status, _, errors = run(capsys, folder)
    assert status == 1 and errors[:-1].isprintable() and r"\x1b[2J" in errors


def test_an_empty_buffer(tmp_path, capsys):
    save_buffer(tmp_path / "prompt_replay", PromptReplayBuffer(), {})
    status, output, _ = run(capsys, tmp_path, "--verify")
    assert status == 0 and output.splitlines()[-1] == "no rows"
