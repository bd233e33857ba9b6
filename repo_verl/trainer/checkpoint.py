"""The buffer beside verl's checkpoint of the same step: ``global_step_N/prompt_replay``.

It is complete before verl's tracker file names the step (:mod:`repo_verl.verl_workarounds.tracker`); its files are
those of :mod:`repo_verl.replay.files`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from repo_verl.config import PREFIX, RepoConfig
from repo_verl.replay import PromptReplayBuffer
from repo_verl.replay.files import (
    NO_LIMITS,
    LoadedBuffer,
    has_buffer,
    load_buffer,
    read_meta,
    remove_buffer,
    save_buffer,
)
from repo_verl.replay.fitting import RowLimits
from repo_verl.step_folders import BUFFER, folder_of, step_of, steps_in
from repo_verl.trainer.identity import refuse_other_settings
from repo_verl.trainer.limits import describe_left_out
from repo_verl.verl_workarounds import tracker
from repo_verl.verl_workarounds.tracker import CheckpointError, Marker

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

QUEUE = "transfer_queue"
"""verl's folder in the checkpoints of its asynchronous trainers: responses that are finished and not trained on yet."""

NONE_FINISHED = "no checkpoint of this run is finished yet"


class CheckpointKeeper:
    """Saves and restores the buffer around verl's own saving and loading.

    Args:
        trainer: verl's ``trainer`` block.
        repo: RePO's settings.
        fixed: what stored rows depend on; a buffer saved under other values is refused.
        sampling: how the responses are sampled that verl's queue holds; None where verl saves no queue. A queue that
            was saved under other values is refused where its rows would enter the buffer.
        limits: the longest rows that this run trains on; longer ones are not restored.
    """

    def __init__(
        self,
        trainer: Any,
        repo: RepoConfig,
        fixed: Mapping[str, Any],
        sampling: Mapping[str, Any] | None = None,
        limits: RowLimits = NO_LIMITS,
    ) -> None:
        self._trainer, self._fixed = trainer, as_read_back(fixed)
        self._sampling = None if sampling is None else as_read_back(sampling)
        self._root = os.path.abspath(trainer.default_local_dir)
        self._keeps_buffer = repo.active and repo.persist
        self._repo, self._limits = repo, limits
        self._last: int | None = None  # step that was saved or resumed from, in this folder
        self._saved: int | None = None  # step that was saved by this run

    @contextlib.contextmanager
    def saving(self, step: int, effective_steps: int, buffer: PromptReplayBuffer, actor: Any) -> Iterator[None]:
        """Around verl's saving of a step: the buffer before it, the marker and the removal of old buffers after it.

        Args:
            step: verl's global step.
            effective_steps: so far.
            buffer: what is saved.
            actor: verl's worker group, whose ``save_checkpoint`` is called inside.

        Raises:
            CheckpointError: if anything could not be written.
        """
        folder = folder_of(self._root, step)
        try:
            tracker.name_parent(self._root, step, self._last)
            marker = Marker(effective_steps, None, tracker.next_number(self._root), self._last, self._sampling)
            tracker.write_marker(folder, marker)
            if self._keeps_buffer:
                save_buffer(os.path.join(folder, BUFFER), buffer, {"fixed": self._fixed})
            else:
                remove_buffer(os.path.join(folder, BUFFER))
            with self._last_one_kept(actor):
                yield
            tracker.write_marker(folder, dataclasses.replace(marker, files=tracker.list_files(folder)))
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(self._sentence(step, error)) from error
        self._remove_old(step)
        self._last = self._saved = step

    def _sentence(self, step: int, error: Exception) -> str:
        other = self._last if self._last != step else None
        last = f"the last finished checkpoint is {folder_of(self._root, other)}" if other is not None else NONE_FINISHED
        lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
        return (
            f"step {step} could not be saved below {self._root} ({type(error).__name__}: {lines[-1].strip()[:300]}); "
            f"{last}: mend the cause (a full disk, a folder that can't be written) and start the same command again."
        )

    @contextlib.contextmanager
    def _last_one_kept(self, actor: Any) -> Iterator[None]:
        """Where one checkpoint is to be kept, have verl keep two: it removes the old one before the new is finished."""
        stock = actor.save_checkpoint
        if self._limit() != 1:
            yield
            return

        def save_checkpoint(*args: Any, **kwargs: Any) -> Any:
            return stock(*args, **{**kwargs, "max_ckpt_to_keep": 2})

        actor.save_checkpoint = save_checkpoint
        try:
            yield
        finally:
            actor.save_checkpoint = stock

    def _limit(self) -> int | None:
        if self._trainer.get("remove_previous_ckpt_in_save", False):
            return 1
        return self._trainer.get("max_actor_ckpt_to_keep", None)

    def _remove_old(self, step: int) -> None:
        """Remove what RePO keeps of checkpoints whose actor verl removed."""
        if self._limit() is None:
            return
        if self._limit() == 1 and self._saved is not None and self._saved != step:
            shutil.rmtree(os.path.join(folder_of(self._root, self._saved), "actor"), ignore_errors=True)
        for other in steps_in(self._root):
            folder = folder_of(self._root, other)
            if other != step and not os.path.exists(os.path.join(folder, "actor")):
                try:
                    remove_buffer(os.path.join(folder, BUFFER))
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(folder, tracker.MARKER))
                except OSError as error:
                    logger.warning("RePO: the old buffer in %s could not be removed: %s", folder, error)

    def find(self) -> str | None:
        """The checkpoint folder that verl is about to resume from; None if it starts from scratch.

        Raises:
            CheckpointError: if it is not whole.
            RepoConfigError: if its buffer was filled under other settings.
            BufferFilesError: if the buffer is damaged.
        """
        folder: str | None = None
        if self._trainer.resume_mode == "auto":
            tracker.repair_latest(self._root)
            folder = tracker.named_by_tracker(self._root)
        elif self._trainer.resume_mode == "resume_path" and isinstance(self._trainer.resume_from_path, str):
            folder = os.path.abspath(self._trainer.resume_from_path)
        if folder is None:
            return None
        path = os.path.join(folder, BUFFER)
        reads_buffer = self._keeps_buffer and has_buffer(path)
        tracker.refuse_broken(folder, None if reads_buffer else BUFFER)
        self._refuse_other_queue(folder)
        if reads_buffer:
            refuse_other_settings(read_meta(path).extra.get("fixed", {}), self._fixed, path)
        return folder

    def _refuse_other_queue(self, folder: str) -> None:
        """Refuse responses in flight that were sampled otherwise: their log-probs would be stored as if they were not.

        Raises:
            CheckpointError: naming what differs.
        """
        if self._sampling is None or not self._repo.active or not os.path.isdir(os.path.join(folder, QUEUE)):
            return
        marker = tracker.read_marker(folder)
        saved = marker.sampling if marker else None
        if saved == self._sampling:
            return
        differ = [key for key, value in self._sampling.items() if saved and saved.get(key) != value]
        reason = f"under another {', '.join(differ)}" if differ else "by a run that did not note how"
        raise CheckpointError(
            f"{os.path.join(folder, QUEUE)} holds responses that were sampled {reason}, so their log-probs could not "
            "be replayed: resume with the saved values, or with trainer.v1.trainer_mode=sync, which leaves them out."
        )

    def restore(self, folder: str, buffer: PromptReplayBuffer) -> int:
        """Fill the buffer from a checkpoint that verl has loaded; returns its effective steps.

        Raises:
            BufferFilesError: if the buffer is damaged.
        """
        path = os.path.join(folder, BUFFER)
        if self._repo.active and not self._keeps_buffer:
            logger.warning("RePO: %spersist=false, so the replay buffer starts empty", PREFIX)
        elif self._keeps_buffer and not has_buffer(path):
            logger.warning("RePO: %s has no replay buffer, so it starts empty", folder)
        elif self._keeps_buffer:
            loaded = load_buffer(path, buffer, self._limits)
            if any(loaded.too_long):
                logger.warning("RePO: %s", describe_left_out(self._limits, loaded.too_long))
            for line in _restored(loaded, self._repo, folder):
                logger.info("RePO: %s", line)
        marker = tracker.read_marker(folder)
        effective_steps = marker.effective_steps if marker else 0
        if os.path.dirname(folder) == self._root:
            self._last = step_of(folder)
            if marker is None or marker.files is None:
                self._mark_complete(folder, marker or Marker(0, None, tracker.next_number(self._root)))
        return effective_steps

    def _mark_complete(self, folder: str, marker: Marker) -> None:
        """Mark a checkpoint as finished that verl's tracker names and that was loaded."""
        try:
            tracker.write_marker(folder, dataclasses.replace(marker, files=tracker.list_files(folder)))
        except OSError as error:
            logger.warning("RePO: %s can't be marked as finished: %s", folder, error)


def as_read_back(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back; NaN and infinities, which JSON has not, become text."""
    return dict(json.loads(json.dumps(dict(fixed), default=str), parse_constant=str))


def _restored(loaded: LoadedBuffer, repo: RepoConfig, folder: str) -> Iterator[str]:
    """Sentences on what was restored, and on what was changed on the way."""
    saved, over = loaded.meta.settings, loaded.over_capacity
    yield f"restored {loaded.rows} rows from {folder}"
    if loaded.evicted_prompts:
        yield (
            f"{PREFIX}max_tokens={repo.max_tokens}, where {loaded.meta.tokens} response tokens were saved: "
            f"{loaded.evicted_prompts} prompts with {loaded.evicted_rows} rows, visited longest ago, are left out"
        )
    if saved["capacity"] != repo.capacity:
        left = f"the {over} oldest rows are left out" if over else "all rows are kept"
        yield f"{PREFIX}capacity={repo.capacity}, where the buffer was saved with {saved['capacity']}: {left}"
    if saved["log_prob_dtype"] != repo.log_prob_dtype:
        yield (
            f"{PREFIX}log_prob_dtype={repo.log_prob_dtype}, where the buffer was saved with {saved['log_prob_dtype']}: "
            f"stored log-probs are converted"
        )
