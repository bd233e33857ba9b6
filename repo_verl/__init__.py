"""RePO (Replay-Enhanced Policy Optimization, arXiv 2506.09340) for verl.

Importing this package imports nothing else: verl loads :mod:`repo_verl.plugin` in every process.
"""

__version__ = "0.1.0"

ESTIMATOR = "repo"  # algorithm.adv_estimator
MODES = ("sync", "colocate_async")  # values of trainer.v1.trainer_mode that RePO serves
OUR_REWARDS = "pkg://repo_verl.rewards"
"""``reward.custom_reward_function.path`` of runs whose ground truths are checked, whatever their estimator."""
