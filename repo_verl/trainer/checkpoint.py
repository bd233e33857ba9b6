"""The buffer beside verl's checkpoint of the same step: ``global_step_N/prompt_replay``.

It is complete before verl's tracker file names the step (:mod:`repo_verl.verl_workarounds.tracker`); its files are
those of :mod:`repo_verl.replay.checkpoint`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from repo_verl.config import PREFIX, RepoConfig, lookup
from repo_verl.replay import PromptReplayBuffer
from repo_verl.replay.checkpoint import LoadedBuffer, has_buffer, load_buffer, read_meta, remove_buffer, save_buffer
from repo_verl.replay.state import NO_LIMITS, RowLimits
from repo_verl.step_folders import BUFFER, folder_of, step_of, steps_in
from repo_verl.trainer.identity import refuse_other_settings
from repo_verl.verl_workarounds import tracker
from repo_verl.verl_workarounds.tracker import CheckpointError, Marker

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

QUEUE = "transfer_queue"  # verl's folder in asynchronous checkpoints: responses that are not trained on yet
TOKENS = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"


class CheckpointKeeper:
    """Saves and restores the buffer around verl's own saving and loading; ``trainer`` is verl's block.

    A buffer that was saved under other values of ``fixed``, what stored rows depend on, is refused. So is verl's queue
    (of an asynchronous trainer) saved under other values of ``sampling``, if its rows would enter the buffer. Rows over
    the ``limits`` are not restored.
    """

    def __init__(
        self,
        trainer: Any,
        repo: RepoConfig,
        fixed: Mapping[str, Any],
        sampling: Mapping[str, Any] | None = None,
        limits: RowLimits = NO_LIMITS,
    ) -> None:
        self._trainer, self._repo, self._limits = trainer, repo, limits
        self._fixed = as_read_back(fixed)
        self._sampling = None if sampling is None else as_read_back(sampling)
        self._root = os.path.abspath(trainer.default_local_dir)
        self._keeps_buffer = repo.active and repo.persist
        previous = trainer.get("remove_previous_ckpt_in_save", False)
        self._limit: int | None = 1 if previous else trainer.get("max_actor_ckpt_to_keep", None)
        self._last: int | None = None  # step that was saved or resumed from, in this folder
        self._saved: int | None = None  # step that was saved by this run

    @contextlib.contextmanager
    def saving(self, step: int, effective_steps: int, buffer: PromptReplayBuffer, actor: Any) -> Iterator[None]:
        """Around verl's saving of a step: the buffer before it, the marker and the removal of old buffers after it.

        ``actor`` is verl's worker group, whose ``save_checkpoint`` is called inside. CheckpointError if anything could
        not be written.
        """
        folder = folder_of(self._root, step)
        try:
            tracker.point_tracker_at_parent(self._root, step, self._last)
            marker = Marker(effective_steps, None, tracker.next_number(self._root), self._last, self._sampling)
            tracker.write_marker(folder, marker)
            if self._keeps_buffer:
                save_buffer(os.path.join(folder, BUFFER), buffer, {"fixed": self._fixed})
            else:
                remove_buffer(os.path.join(folder, BUFFER))
            with tracker.two_kept(actor) if self._limit == 1 else contextlib.nullcontext():
                yield
            _mark_complete(folder, marker)
        except (OSError, RuntimeError, ValueError) as error:
            last = "no checkpoint of this run is finished yet"
            if self._last not in (None, step):
                last = f"the last finished checkpoint is {folder_of(self._root, self._last)}"
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"step {step} could not be saved below {self._root} ({type(error).__name__}: "
                f"{lines[-1].strip()[:300]}); {last}: fix the cause (a full disk, a folder that can't be written) and "
                "start the same command again."
            ) from error
        self._remove_old(step)
        self._last = self._saved = step

    def _remove_old(self, step: int) -> None:
        """Remove what RePO keeps of checkpoints whose actor verl removed."""
        if self._limit is None:
            return
        if self._limit == 1 and self._saved is not None and self._saved != step:
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

        CheckpointError if it is incomplete, RepoConfigError if its buffer was filled under other settings,
        BufferFilesError if the buffer is damaged.
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
        """Refuse responses in flight that were sampled otherwise: whose log-probs would be stored."""
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
        """Fill the buffer from a checkpoint that verl has loaded; returns its effective steps."""
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
            if marker is None or marker.files is None:  # verl's tracker names it, and it was loaded
                try:
                    _mark_complete(folder, marker or Marker(0, None, tracker.next_number(self._root)))
                except OSError as error:
                    logger.warning("RePO: %s can't be marked as finished: %s", folder, error)
        return effective_steps


def _mark_complete(folder: str, marker: Marker) -> None:
    tracker.write_marker(folder, dataclasses.replace(marker, files=tracker.list_files(folder)))


def as_read_back(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back; NaN and infinities, which JSON has not, become text."""
    return dict(json.loads(json.dumps(dict(fixed), default=str), parse_constant=str))


def row_limits(config: Any) -> RowLimits:
    """The longest prompt, response and row that verl's workers take in an update.

    A row must fit into one micro-batch. verl bounds one only where it cuts by tokens (``use_dynamic_bsz``): at
    ``ppo_max_token_len_per_gpu`` times the ranks that share a sequence (``prepare_micro_batches`` in its
    workers/engine/utils.py).
    """
    actor, rollout = "actor_rollout_ref.actor.", "actor_rollout_ref.rollout."
    if lookup(config, f"{actor}strategy") == "megatron":
        sharing = lookup(config, f"{actor}megatron.context_parallel_size", 1)
    else:
        sharing = lookup(config, f"{actor}ulysses_sequence_parallel_size", 1)  # wins in verl, if above 1
        if sharing == 1:
            sharing = lookup(config, f"{actor}fsdp_config.ulysses_sequence_parallel_size", 1)
    bounded = lookup(config, f"{actor}use_dynamic_bsz", False)
    return RowLimits(
        prompt=lookup(config, f"{rollout}prompt_length", lookup(config, "data.max_prompt_length")),
        response=lookup(config, f"{rollout}response_length", lookup(config, "data.max_response_length")),
        row=int(lookup(config, TOKENS, 16384)) * int(sharing) if bounded else None,
    )


def describe_left_out(limits: RowLimits, left_out: Sequence[int]) -> str:
    """A sentence on saved rows that are too long: for their prompt, their response, and both together."""
    keys = ("data.max_prompt_length", "data.max_response_length", f"{TOKENS} on all ranks of a sequence")
    values = (limits.prompt, limits.response, limits.row)
    reasons = [f"{n} over {key}={value}" for n, key, value in zip(left_out, keys, values, strict=True) if n]
    return (
        f"{sum(left_out)} saved rows are left out, since they are longer than this run takes ({', '.join(reasons)}): "
        "resume with the former values to keep them"
    )


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
