"""Scenarios of ``recorded_run.py`` for a tiny model, and the process that plays them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tiny_model import make_tiny_model, write_prompts

PROGRAM = Path(__file__).with_name("recorded_run.py")


class RecordedJobs:
    """Scenarios that share a folder, a model and, unless told otherwise, prompts.

    Args:
        folder: of everything that is written.
        prompts: of the training file.
        per_step: prompts a training step.
        n: responses a prompt.
        common: Hydra overrides of every scenario.
    """

    def __init__(self, folder: Path, prompts: list[str], per_step: int, n: int, common: list[str]):
        self.folder = folder
        self.model = make_tiny_model(folder / "model")
        self.data = write_prompts(folder / "train.parquet", prompts)
        self._common = [
            f"data.train_batch_size={per_step}", f"actor_rollout_ref.rollout.n={n}",
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4", "trainer.logger=[console]", *common,
        ]  # fmt: skip
        self._scenarios: list[dict[str, Any]] = []

    def add(self, name: str, overrides: list[str], data: Path | None = None, local: str = "", **options: Any) -> Path:
        """One more scenario.

        Args:
            name: of its folder.
            overrides: of this one alone.
            data: another training file.
            local: verl's folder of checkpoints; ``name`` unless given.
            options: what ``recorded_run.py`` is told beside the overrides.

        Returns:
            The folder of what it writes.
        """
        out = self.folder / name
        out.mkdir()
        data = data or self.data
        paths = [
            f"actor_rollout_ref.model.path={self.model}", f"data.train_files={data}", f"data.val_files={data}",
            f"trainer.default_local_dir={self.folder / (local or name)}",
        ]  # fmt: skip
        self._scenarios.append({"out": str(out), "overrides": [*paths, *self._common, *overrides], **options})
        return out

    def play(self, timeout: float | None = None) -> tuple[int, str]:
        """Run all of them, one after the other; exit status and output."""
        listed, log = self.folder / "scenarios.json", self.folder / "log"
        listed.write_text(json.dumps(self._scenarios))
        with log.open("w") as file:
            done = subprocess.run(
                [sys.executable, str(PROGRAM), str(listed)], stdout=file, stderr=subprocess.STDOUT, cwd=self.folder,
                env={**os.environ, "VERL_PLATFORM": "cpu"}, timeout=timeout, check=False,
            )  # fmt: skip
        return done.returncode, log.read_text()
