"""Keys of verl's configuration that the pages name are there, as RePO's configuration files compose it."""

import importlib.util
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[2]
KEY = re.compile(
    r"`(?P<plus>\+?)(?P<key>(?:algorithm|actor_rollout_ref|data|trainer|reward|critic|transfer_queue|distillation)\.[\w.]+)"
)
NOT_DECLARED = {"reward.custom_reward_function.reward_kwargs"}  # verl has it without a default: + declares it


@pytest.fixture(scope="module")
def keys():
    """All dotted keys of repo_trainer.yaml, those of mappings too."""
    verl = Path(importlib.util.find_spec("verl").submodule_search_locations[0])
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "recipe" / "repo" / "config"), version_base=None):
        config = compose("repo_trainer", overrides=[f"hydra.searchpath=[file://{verl}/trainer/config]"])
    found = set()

    def walk(node, prefix):
        for name, value in node.items():
            found.add(f"{prefix}{name}")
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")

    walk(OmegaConf.to_container(config, resolve=False), "")
    return found


def test_keys_that_pages_name_exist(keys):
    assert {"algorithm.repo.strategy", "actor_rollout_ref.rollout.n", "trainer.save_freq"} <= keys
    named = set()
    for path in sorted((ROOT / "docs").rglob("*.md")):
        for match in KEY.finditer(path.read_text()):
            key = match["key"].rstrip(".")
            if not match["plus"] and not key.endswith((".pt", ".parquet")) and key not in NOT_DECLARED:
                assert key in keys, (path.name, key)
                named.add(key)
    assert len(named) > 40


def test_a_key_that_is_gone_is_found_out(keys):
    assert KEY.search("see `actor_rollout_ref.actor.gone=1`")["key"] not in keys
