"""verl's own data set reads every prepared file, and agrees on how long a prompt is."""

from pathlib import Path

import datasets
import pytest
from preparing import prepare
from tiny_model import make_tiny_model

from data_prep import jobs

pytestmark = [pytest.mark.contract, pytest.mark.shared_data]

DATA = Path(__file__).parents[2].parent / "shared/data"
FILES = sorted(path for path in DATA.rglob("*") if path.suffix in (".json", ".jsonl", ".parquet"))
FILES = [path for path in FILES if path.parent.name != "grading"]  # pairs for the grader, no data set


def set_of(path):
    folder = path.parent.name
    return folder if folder != "train" else "deepmath" if "deepmath" in path.name else "math"


def prepared(output, *flags):
    prepare(output, *flags)
    return sorted(str(path) for path in output.glob("*.parquet"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    folder = make_tiny_model(tmp_path_factory.mktemp("model"))
    return folder, AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def verl_dataset(tokenizer, tmp_path, monkeypatch):
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def read(files, **settings):
        config = OmegaConf.create({"cache_dir": str(tmp_path / "verl"), "filter_overlong_prompts": False, **settings})
        return RLHFDataset(files, tokenizer[1], config)

    return read


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_verl_reads_a_prepared_file(verl_dataset, tmp_path, path):
    import pyarrow.parquet as pq

    files = prepared(tmp_path / "out", set_of(path), "--input", str(path))
    rows = pq.read_table(files[0]).to_pylist()
    read = verl_dataset(files)
    assert len(read) == len(rows) and len(files) == 1
    for number in (0, len(rows) // 2, len(rows) - 1):
        item = read[number]
        assert item["raw_prompt"] == rows[number]["prompt"]
        assert item["reward_model"] == rows[number]["reward_model"]
        assert item["extra_info"] == rows[number]["extra_info"]
        assert (item["data_source"], item["index"]) == (set_of(path), rows[number]["extra_info"]["index"])


def test_verl_joins_the_benchmarks_and_keeps_nulls(verl_dataset, tmp_path):
    from verl.utils.dataset.rl_dataset import collate_fn

    gsm8k = DATA / "gsm8k/openai__grade-school-math__test.jsonl"
    minerva = DATA / "minerva/QwenLM__Qwen2.5-Math__test.jsonl"
    inputs = ["--input", str(DATA), "--input", f"gsm8k={gsm8k}", "--input", f"minerva={minerva}"]
    prepare(tmp_path / "out", "benchmarks", *inputs)
    read = verl_dataset([str(tmp_path / f"out/{name}_test.parquet") for name in jobs.BENCHMARKS])
    assert len(read) == 2866
    assert [read[n]["data_source"] for n in (0, 499, 500, 539, 540, 1214, 1215)] == [
        "math500", "math500", "amc23", "amc23", "olympiadbench", "olympiadbench", "minerva",
    ]  # fmt: skip
    extra = [read[n]["extra_info"] for n in range(540, 1215)]
    assert [entry["tolerance"] for entry in extra if entry["tolerance"] is not None] == [0.1]
    assert [entry["unit"] for entry in extra if entry["id"] in ("2592", "2334")] == ["km", "%"]
    batch = collate_fn([read[0], read[540]])
    assert [info["tolerance"] for info in batch["extra_info"]] == [None, None]


def test_verl_finds_no_longer_prompt_than_ours(verl_dataset, tokenizer, tmp_path):
    source = ["math500", "--input", str(DATA / "math500/hkust-nlp__simpleRL-reason__test.jsonl"), "--template", "boxed"]
    every = verl_dataset(
        prepared(tmp_path / "all", *source),
        filter_overlong_prompts=True,
        max_prompt_length=200,
        filter_overlong_prompts_workers=None,
    )
    kept = verl_dataset(
        prepared(tmp_path / "kept", *source, "--max-prompt-tokens", "200", "--tokenizer", str(tokenizer[0]))
    )
    assert 0 < len(kept) < 500
    assert [row["index"] for row in kept] == [row["index"] for row in every]
