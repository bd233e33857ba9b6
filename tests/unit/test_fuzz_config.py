"""Mutated settings and training files: a validated configuration, or a RepoConfigError that names the key."""

import yaml
from fuzz_tables import mutate_parquet
from fuzzing import ROOT, fuzz, hostile_value, is_ours, mutate_bytes, mutate_tree, portion, to_file
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repo_verl.config import RepoConfig, RepoConfigError
from repo_verl.trainer.ground_truth_check import read_golds
from repo_verl.trainer.run_warnings import describe_objective, pruning_obstacle
from repo_verl.trainer.validation import check_config, is_selected

WHOLE = {
    "algorithm": {
        "adv_estimator": "repo", "repo": RepoConfig().to_dict(), "use_kl_in_reward": False,
        "filter_groups": {"enable": False},
        "rollout_correction": {"bypass_mode": False, "rollout_rs": None, "rollout_is": None}, "use_pf_ppo": False,
    },
    "actor_rollout_ref": {
        "actor": {
            "strategy": "fsdp2", "shuffle": False, "loss_agg_mode": "seq-mean-token-mean", "loss_scale_factor": None,
            "policy_loss": {"loss_mode": "vanilla"}, "use_kl_loss": False, "entropy_coeff": 0,
            "use_prefix_grouper": False,
        },
        "rollout": {"n": 8, "temperature": 1.0, "enable_rollout_routing_replay": False},
        "model": {"mtp": {"enable_train": False}},
    },
    "trainer": {"use_v1": True, "v1": {"trainer_mode": "sync", "sync": {"parameter_sync_step": 1}}},
    "distillation": {"enabled": False}, "critic": {"enable": False},
}  # fmt: skip
ROWS = [{"data_source": "a", "reward_model": {"style": "rule", "ground_truth": str(n)}} for n in range(6)]


def both(found, least=50):
    assert found["accepted"] > portion(least) and found["refused"] > portion(least), found


def refused(error):
    return isinstance(error, RepoConfigError) and is_ours(error)


def test_the_block():
    def make(rng):
        value = RepoConfig().to_dict()
        for _ in range(rng.randint(1, 2)):
            value[rng.choice([*value, "x", "", "strategy ", "\ud800", "__class__"])] = hostile_value(rng)
        return value if rng.random() < 0.97 else hostile_value(rng)

    both(fuzz("block", 4000, make, RepoConfig.from_mapping, refused))


def mutated_whole(rng):
    value = WHOLE
    for _ in range(rng.randint(1, 3)):
        value = mutate_tree(value, rng)
    return value


def checked(config):
    is_selected(config)
    repo = check_config(config)
    assert isinstance(repo, RepoConfig)
    pruning_obstacle(config)
    describe_objective(config, repo).encode()


def test_whole_configurations():
    both(fuzz("whole", 4000, mutated_whole, checked, refused))


def test_yaml_files(tmp_path):
    """As Hydra reads them; what OmegaConf refuses is its own."""
    texts = [path.read_text() for path in sorted((ROOT / "recipe/repo/config").glob("*.yaml"))] + [
        yaml.safe_dump(WHOLE)
    ]

    def make(rng):
        text = yaml.safe_dump(mutated_whole(rng)) if rng.random() < 0.5 else rng.choice(texts)
        return mutate_bytes(text.encode("utf-8", "surrogatepass"), rng)

    def read(data):
        try:
            config = OmegaConf.create(data.decode("utf-8", "replace"))
        except (
            yaml.YAMLError,
            OmegaConfBaseException,
            ValueError,
            RecursionError,
            LookupError,
            AttributeError,
            OSError,
        ):
            raise RepoConfigError("not read by OmegaConf") from None
        except AssertionError:
            raise RepoConfigError("not read by OmegaConf") from None
        checked(config)

    fuzz("yaml", 800, make, read, lambda error: isinstance(error, RepoConfigError))


def test_training_files(tmp_path):
    def read(path):
        assert len(read_golds(path, 4)) <= 4

    reader = to_file(tmp_path / "train.parquet", read)
    both(fuzz("golds", 1500, lambda rng: mutate_parquet(ROWS, rng), reader, refused))
