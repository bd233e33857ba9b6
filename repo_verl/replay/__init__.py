"""The per-prompt replay buffer: records, selection strategies, stores and the buffer itself."""

from repo_verl.replay.buffer import PromptReplayBuffer
from repo_verl.replay.contents import Selection
from repo_verl.replay.record import BlobStore, HostStore, Record, prompt_key

__all__ = ["BlobStore", "HostStore", "PromptReplayBuffer", "Record", "Selection", "prompt_key"]
