"""Rewards: the answer in the last box, judged against the gold answer.

verl finds it with ``reward.custom_reward_function.path=pkg://repo_verl.rewards``. Importing this package imports the
standard library only; Math-Verify (and with it SymPy) is imported when an answer first needs it.
"""

from repo_verl.rewards.extract import extract_boxed
from repo_verl.rewards.score import compute_score, gold_is_verifiable

__all__ = ["compute_score", "extract_boxed", "gold_is_verifiable"]
