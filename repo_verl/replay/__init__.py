"""The per-prompt replay buffer: records, selection strategies and the buffer itself."""

from repo_verl.replay.buffer import PromptReplayBuffer
from repo_verl.replay.record import Record, prompt_key

__all__ = ["PromptReplayBuffer", "Record", "prompt_key"]
