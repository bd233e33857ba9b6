"""Scenarios of ``recorded_run.py`` for a tiny model, and the process that plays them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from tiny_model import make_tiny_model, write_prompts

PROGRAM = Path(__file__).with_name("recorded_run.py")


class Player:
    """The process that plays scenarios, and the base model that they start from.

    Args:
        folder: of model and log.
    """

    def __init__(self, folder: Path):
        self.model = make_tiny_model(folder / "model")
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=folder,
                env={**os.environ, "VERL_PLATFORM": "cpu"},
            )  # fmt: skip

    def play(self, scenarios: list[dict[str, Any]], timeout: float | None = None) -> tuple[int, str]:
        """Run them, one after the other, up to the first that fails.

        Args:
            scenarios: what ``recorded_run.py`` reads.
            timeout: seconds that one may take.

        Returns:
            Exit status and output.
        """
        begin, status = self._log.stat().st_size, 0
        for scenario in scenarios:
            self._process.stdin.write(json.dumps(scenario).encode() + b"\n")
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], timeout)
            status = int(self._process.stdout.readline() or 1) if ready else 1
            if status:
                break
        return status, self._log.read_bytes()[begin:].decode(errors="replace")

    def end(self) -> None:
        """No more scenarios."""
        self._process.communicate()


class RecordedJobs:
    """Scenarios that share a folder, a model and, unless told otherwise, prompts.

    Args:
        player: of the scenarios.
        folder: of everything that is written.
        prompts: of the training file.
        per_step: prompts a training step.
        n: responses a prompt.
        common: Hydra overrides of every scenario.
    """

    def __init__(self, player: Player, folder: Path, prompts: list[str], per_step: int, n: int, common: list[str]):
        self.folder = folder
        self.data = write_prompts(folder / "train.parquet", prompts)
        self._player = player
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
            f"actor_rollout_ref.model.path={self._player.model}", f"data.train_files={data}", f"data.val_files={data}",
            f"trainer.default_local_dir={self.folder / (local or name)}",
        ]  # fmt: skip
        self._scenarios.append({"out": str(out), "overrides": [*paths, *self._common, *overrides], **options})
        return out

    def play(self, timeout: float | None = None) -> tuple[int, str]:
        """Run all of them, one after the other; exit status and output, which is written to the folder's log too."""
        status, output = self._player.play(self._scenarios, timeout)
        (self.folder / "log").write_text(output)
        return status, output
