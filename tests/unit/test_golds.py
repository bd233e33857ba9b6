"""The look at gold answers before a run."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from repo_verl import OUR_REWARDS
from repo_verl.config import RepoConfigError
from repo_verl.trainer.ground_truth_check import check_golds, read_golds


def write(path, golds, column="reward_model"):
    values = [{"style": "rule", "ground_truth": gold} for gold in golds]
    pq.write_table(
        pa.table({column: pa.array(values, pa.struct([("style", pa.string()), ("ground_truth", pa.string())]))}), path
    )
    return str(path)


def config(files, path=OUR_REWARDS, custom=None):
    return {
        "data": {"train_files": files, "custom_cls": {"path": custom}},
        "reward": {"custom_reward_function": {"path": path}},
    }


def test_golds_are_spread_over_the_file(tmp_path):
    file = tmp_path / "a.parquet"
    write(file, [str(n) for n in range(1000)])
    assert read_golds(file, 4) == ["0", "250", "500", "750"]
    assert len(read_golds(file, 5000)) == 1000


def test_every_file_is_looked_at(tmp_path):
    good, bad = write(tmp_path / "good.parquet", ["1", "x"]), write(tmp_path / "bad.parquet", ["", "", "1"])
    check_golds(config(good))
    with pytest.raises(RepoConfigError, match=r"bad.parquet: 2 of 3 gold answers .*--filter-unverifiable"):
        check_golds(config([good, bad]))


def test_files_without_golds_are_refused(tmp_path):
    with pytest.raises(RepoConfigError, match="has no column reward_model"):
        check_golds(config(write(tmp_path / "a.parquet", ["1"], column="answer")))
    with pytest.raises(RepoConfigError, match="has no rows"):
        check_golds(config(write(tmp_path / "b.parquet", [])))


def test_what_is_not_ours_is_left_to_verl(tmp_path):
    bad = write(tmp_path / "bad.parquet", ["", ""])
    check_golds(config(bad, path="my_rewards.py"))
    check_golds(config(bad, custom="my_data.py"))
    check_golds(config(["hdfs://somewhere/x.parquet", str(tmp_path / "none.parquet"), str(tmp_path / "a.jsonl")]))
    check_golds({})
