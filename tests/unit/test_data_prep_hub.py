"""What is read from the hub when there is no --input, and what is said when the hub cannot be reached."""

import hashlib
import socket
import time

import datasets
import pytest
from preparing import prepare, refused, rows_of

from data_prep import hub, jobs


def test_without_hub_and_input_one_sentence_says_what_to_do(capsys, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(hub, "reach", lambda address: None)
    message = refused(capsys, tmp_path / "out", "deepmath")
    assert "hub set zwhe99/DeepMath-103K could not be loaded (ConnectionError: no network)" in message
    assert "hf download zwhe99/DeepMath-103K --repo-type dataset" in message and "--input" in message


HUB = {
    "deepmath": [("zwhe99/DeepMath-103K", None, "train")],
    "gsm8k": [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")],
    "math": [("DigitalLearningGmbH/MATH-lighteval", None, "train")],
    "math500": [("HuggingFaceH4/MATH-500", None, "test")],
    "amc23": [("math-ai/amc23", None, "test")],
    "olympiadbench": [("zwhe99/simplerl-OlympiadBench", None, "test")],
    "minerva": [("zwhe99/simplerl-minerva-math", None, "test")],
    "aime24": [("HuggingFaceH4/aime_2024", None, "train")],
    "aime25": [("math-ai/aime25", None, "test")],
}


@pytest.fixture
def fake_hub(monkeypatch):
    asked = []

    def load(name, config, split, streaming):
        assert streaming
        asked.append((name, config, split))
        return iter([{"question": f"{name}?", "answer": "5", "final_answer": "5"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub, "reach", lambda address: None)
    return asked


@pytest.mark.parametrize("name", HUB)
def test_without_input_the_papers_hub_set_is_streamed(tmp_path, fake_hub, name):
    account = prepare(tmp_path, name)
    assert fake_hub == HUB[name]
    splits = {"gsm8k": ["test", "train"], "deepmath": ["train"], "math": ["train"]}.get(name, ["test"])
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == [f"{name}_{split}.parquet" for split in splits]
    row = rows_of(tmp_path / f"{name}_{splits[0]}.parquet")[0]
    assert (row["data_source"], row["extra_info"]["split"]) == (name, splits[0])
    sources = account["source"].values() if name == "gsm8k" else [account["source"]]
    assert [(source["hub"], source["config"], source["split"]) for source in sources] == HUB[name]
    assert all(len(source["records_sha256"]) == 64 for source in sources)


def test_shards_of_a_hub_set_are_one_source(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in (0, 1):
        record = {"problem": f"p{number}", "answer": "1"}
        datasets.Dataset.from_list([record]).to_parquet(str(folder / f"train-0000{number}-of-00002.parquet"))
    account = prepare(tmp_path / "out", "aime24", "--input", str(folder))
    rows = rows_of(tmp_path / "out/aime24_test.parquet")
    assert [(r["prompt"][0]["content"], r["extra_info"]["index"]) for r in rows] == [("p0", 0), ("p1", 1)]
    assert account["source"]["folder"] == "shards" and len(account["source"]["sha256"]) == 2


def test_one_split_of_a_hub_set(tmp_path, fake_hub, capsys):
    prepare(tmp_path, "gsm8k", "--split", "train")
    assert fake_hub == [("openai/gsm8k", "main", "train")]
    capsys.readouterr()
    message = refused(capsys, tmp_path / "none", "aime24", "--split", "train")
    assert "the hub set HuggingFaceH4/aime_2024 has no split train; it has test" in message
    assert fake_hub == [("openai/gsm8k", "main", "train")]


def test_benchmarks_without_input_are_the_seven_hub_sets(tmp_path, fake_hub):
    account = prepare(tmp_path, "benchmarks", "--any-count")
    assert fake_hub == [HUB[name][-1] for name in jobs.BENCHMARKS]
    assert len(account["files"]) == 7 and len(list(tmp_path.glob("*.parquet"))) == 7


def test_the_digest_of_hub_records_is_that_of_their_json(fake_hub):
    source = {}
    assert len(list(hub.hub_records(jobs.SETS["aime25"], "test", source))) == 1
    line = b'{"answer": "5", "final_answer": "5", "question": "math-ai/aime25?"}\n'
    assert source == {"records_sha256": hashlib.sha256(line).hexdigest()}


def test_without_network_the_answer_comes_at_once(tmp_path, monkeypatch, capsys):
    def no_name(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", no_name)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    start = time.monotonic()
    message = refused(capsys, tmp_path / "out", "aime24")
    assert "could not be loaded (gaierror: [Errno -2] Name or service not known); on a machine with" in message
    message = refused(capsys, tmp_path / "out", "aime24", "--tokenizer", "nobody/nothing", "--max-prompt-tokens", "5")
    assert "--tokenizer nobody/nothing: cannot be used (OSError: " in message
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(("proxies", "asked"), [({}, 1), ({"https": "p"}, 0), ({"all": "p"}, 0), ({"http": "p"}, 1)])
def test_behind_a_proxy_the_hub_is_not_asked_directly(monkeypatch, proxies, asked):
    with socket.create_server(("127.0.0.1", 0)) as server:
        calls = []
        connect = socket.create_connection
        monkeypatch.setattr(
            socket, "create_connection", lambda place, timeout: (calls.append(place), connect(place, timeout))[1]
        )
        monkeypatch.setattr("urllib.request.getproxies", lambda: proxies)
        port = server.getsockname()[1]
        hub.reach(f"https://127.0.0.1:{port}")
    assert calls == [("127.0.0.1", port)] * asked


def test_a_hub_set_of_another_count_is_no_benchmark(tmp_path, fake_hub, capsys):
    message = refused(capsys, tmp_path / "out", "benchmarks")
    assert "HuggingFaceH4/MATH-500: has 1 records, but math500 has 500" in message and "--any-count" in message
