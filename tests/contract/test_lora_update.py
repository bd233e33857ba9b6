"""A RePO update of LoRA adapters through verl's FSDP2 actor: the gradient of the loops, whole and pruned."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import make_tiny_model

pytestmark = pytest.mark.contract

PROGRAM = Path(__file__).resolve().parents[1] / "helpers" / "lora_update.py"
UPDATES = [f"{ranks}-{kind}" for ranks in (1, 2) for kind in ("whole", "pruned")]


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """How far every parameter moved, by update."""
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("lora")
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(make_tiny_model(folder / "model")), str(folder)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return {"folder": folder, **{name: load_file(folder / f"{name}.safetensors") for name in (*UPDATES, "oracle")}}


@pytest.mark.parametrize("name", UPDATES)
def test_adapters_move_along_the_gradient_of_the_loops(moved, name):
    wanted, found = moved["oracle"], moved[name]
    assert {one for one in found if "lora_" in one} == set(wanted) and len(wanted) == 28
    size = sum(float(one.square().sum()) for one in wanted.values()) ** 0.5
    apart = sum(float((found[one].double() - wanted[one]).square().sum()) for one in wanted) ** 0.5
    assert size > 0.1 and apart <= 1e-4 * size
    assert all(bool(one.any()) for one in wanted.values()), "A and B have a gradient"


@pytest.mark.parametrize("name", UPDATES)
def test_weights_under_the_adapters_stay(moved, name):
    still = [one for key, one in moved[name].items() if "lora_" not in key]
    assert len(still) == 21 and not any(bool(one.any()) for one in still)


def test_a_checkpoint_is_evaluated_with_its_adapters(moved, tmp_path):
    """verl's merger leaves them out; here the weights that vLLM is given have them, to the rounding of bfloat16."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from repo_verl.evaluate.model import resolve

    folder = moved["folder"]
    model = resolve(str(folder / "checkpoint"), tmp_path)
    found = model.path
    assert "lora_train_meta.json" in model.identity, "another alpha is another model"
    weights = dict(AutoModelForCausalLM.from_pretrained(found).named_parameters())
    wanted, base = load_file(folder / "merged.safetensors"), load_file(folder / "model" / "model.safetensors")
    assert set(weights) == set(wanted) and {one.dtype for one in weights.values()} == {torch.bfloat16}
    adapted = [name for name in wanted if not torch.equal(wanted[name], base[name])]
    assert len(adapted) == 14
    for name, one in weights.items():
        torch.testing.assert_close(one.float(), wanted[name], rtol=2**-8, atol=2**-9)
    assert all(float((weights[name].detach().float() - base[name]).abs().max()) > 0.05 for name in adapted)
    assert not (Path(found) / "lora_adapter").exists()
    assert resolve(str(folder / "checkpoint"), tmp_path).path == found, "a resume does not merge again"


def test_an_adapter_beside_the_weights_is_not_passed_over(moved, tmp_path):
    from repo_verl.evaluate.model import resolve

    (tmp_path / "lora_adapter").mkdir()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has its LoRA adapter beside it .* name the checkpoint"):
        resolve(str(tmp_path), tmp_path)


def test_an_adapter_without_its_scale_stops(moved, tmp_path):
    from repo_verl.evaluate.model import resolve

    shutil.copytree(moved["folder"] / "checkpoint", tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "actor" / "lora_train_meta.json").unlink()
    with pytest.raises(RuntimeError, match=r"lora_alpha=0 .*: the checkpoint has no lora_train_meta.json"):
        resolve(str(tmp_path / "checkpoint"), tmp_path / "work")


def test_an_adapter_is_added_once_however_often_it_is_asked_for(moved, tmp_path, monkeypatch):
    """A crash after the weights were written leaves the folder as it was; one in the middle of the exchange, a gap."""
    import torch
    from safetensors.torch import load_file, save_file

    from repo_verl.evaluate import model

    with monkeypatch.context() as patch:
        patch.setattr(model, "ADAPTER", "none")
        folder = Path(model.resolve(str(moved["folder"] / "checkpoint"), tmp_path).path)
    first = load_file(folder / "model.safetensors")

    def killed(*_):
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(Path, "rename", killed)
        model.merge_adapter(folder)
    assert all(bool((one == first[name]).all()) for name, one in load_file(folder / "model.safetensors").items())
    shutil.copytree(folder, tmp_path / "other")
    model.merge_adapter(folder)
    wanted = load_file(moved["folder"] / "merged.safetensors")
    for name, one in load_file(folder / "model.safetensors").items():
        torch.testing.assert_close(one.float(), wanted[name], rtol=2**-8, atol=2**-9)
    assert sorted(one.name for one in folder.parent.iterdir()) == ["merged", "other"]

    file = tmp_path / "other" / "lora_adapter" / "adapter_model.safetensors"
    save_file({name.replace("q_proj", "query"): one for name, one in load_file(file).items()}, file)
    command = [sys.executable, "-m", "repo_verl.evaluate.model", str(tmp_path / "other")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "has no counterpart" in done.stderr
