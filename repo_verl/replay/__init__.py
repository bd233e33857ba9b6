"""The per-prompt replay buffer: records, selection strategies, stores and the buffer itself."""

from repo_verl.replay.buffer import PromptReplayBuffer
from repo_verl.replay.contents import Selection
from repo_verl.replay.record import Record, prompt_key
from repo_verl.replay.store import BlobStore, HostStore

__all__ = ["BlobStore", "HostStore", "PromptReplayBuffer", "Record", "Selection", "prompt_key"]
