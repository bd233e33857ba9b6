"""RePO (Replay-Enhanced Policy Optimization, arXiv 2506.09340) for verl.

Importing this package imports nothing else: verl loads :mod:`repo_verl.plugin` in every process.
"""

__version__ = "0.1.0"
