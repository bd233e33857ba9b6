"""The settings under ``algorithm.repo``, validated before anything heavy starts."""

from __future__ import annotations

import dataclasses
import difflib
import keyword
import sys
from collections.abc import Callable, Mapping
from typing import Any

from repo_verl.safe_text import shown

STRATEGY_NAMES = ("recency", "reward", "variance", "full", "random", "none")
CHOICES = {
    "advantage": ("split", "mixed"),
    "normalize": ("group", "rows"),
    "storage": ("host", "distributed"),
    "log_prob_dtype": ("float32", "bfloat16"),
    "on_nonfinite": ("stop", "skip"),
}
AGGREGATION_MODES = (  # verl's loss_agg_mode
    "token-mean", "token-sum", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm",
)  # fmt: skip
PREFIX = "algorithm.repo."
MOST_SHOWN = 200


class RepoConfigError(ValueError):
    """A setting that RePO can't serve; one sentence naming the key, the value and the remedy."""


@dataclasses.dataclass(frozen=True)
class RepoConfig:
    """Settings of RePO, the block ``algorithm.repo`` of verl's configuration.

    Attributes:
        strategy: which rows of a prompt's buffer are replayed; one of :data:`STRATEGY_NAMES`, or a function of yours,
            ``package.module:function`` (:mod:`repo_verl.replay.own_strategy`), not imported here. ``none`` is GRPO.
        num_replay: rows replayed per prompt and visit (G_off); ``full`` takes all rows and ignores it.
        capacity: rows kept per prompt, first in, first out.
        min_size: rows that a prompt must hold before it replays.
        start_step: training steps without replay at the start of the run.
        max_age: rows older than this many steps are not replayed; null for no limit.
        max_uses: rows replayed this often are not replayed again; null for no limit.
        max_tokens: most response tokens that the buffer holds, over all prompts (``repo/buffer_tokens``). Beyond it the
            prompts visited longest ago are evicted, with all their rows. Prompt tokens are not counted. null for no
            limit.
        advantage: ``split`` normalises fresh and replayed rows separately (the paper), ``mixed`` together.
        normalize: ``group`` weighs the terms 1 : off_policy_coef (the paper), ``rows`` gives every row of the
            mini-batch the same weight (the authors' code).
        off_policy_coef: λ, the weight of the replay term; 0 is GRPO.
        clip_ratio_c: dual-clip bound for replayed rows with negative advantage; null for none (the paper).
        advantage_eps: added to the standard deviation; verl's GRPO has 1e-6, the authors' code 1e-4.
        seed: seeds the buffer's random number generator (strategy ``random``, and functions of yours).
        prune: leave rows whose advantage is exactly 0 out of the update; the gradient is the same.
        storage: where the rows are kept; ``host``: in the driver's memory, ``distributed``: in storage processes on
            the cluster's nodes.
        storage_processes: for ``distributed``; null for one per node.
        log_prob_dtype: of the stored log-probs; ``bfloat16`` halves them and rounds them.
        persist: save the buffer with verl's checkpoints and restore it from them.
        on_nonfinite: what a score, log-prob, advantage or loss that is not finite does: ``stop`` the run, naming the
            rows, or ``skip`` the row (score) or optimizer step (the others), counting them.
        warn_ratio: warn once when a replayed token's ratio exceeds this; null for never.
        warn_ess: warn once when the effective sample size of replayed rows, a share, falls below this; null for never.
    """

    strategy: str = "recency"
    num_replay: int = 8
    capacity: int = 16
    min_size: int = 16
    start_step: int = 0
    max_age: int | None = None
    max_uses: int | None = None
    max_tokens: int | None = None
    advantage: str = "split"
    normalize: str = "group"
    off_policy_coef: float = 1.0
    clip_ratio_c: float | None = None
    advantage_eps: float = 1e-6
    seed: int = 42
    prune: bool = True
    storage: str = "host"
    storage_processes: int | None = None
    log_prob_dtype: str = "float32"
    persist: bool = True
    on_nonfinite: str = "stop"
    warn_ratio: float | None = 100.0
    warn_ess: float | None = 0.1

    def __post_init__(self) -> None:
        _check_strategy(self.strategy)
        for name, choices in CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name in ("prune", "persist"):
            if not isinstance(getattr(self, name), bool):
                raise RepoConfigError(f"{PREFIX}{name}={shown(getattr(self, name))} must be true or false.")
        for name, least in (("num_replay", 1), ("capacity", 1), ("min_size", 1), ("start_step", 0), ("seed", 0)):
            _check_int(name, getattr(self, name), least)
        for name in ("max_age", "max_uses", "max_tokens", "storage_processes"):
            if getattr(self, name) is not None:
                null = "one per node" if name == "storage_processes" else "no limit"
                _check_int(name, getattr(self, name), 1, f"; leave it null for {null}")
        _check_float("off_policy_coef", self.off_policy_coef, 0.0, inclusive=True)
        _check_float("advantage_eps", self.advantage_eps, 0.0)
        for name, bound in (("clip_ratio_c", 1.0), ("warn_ratio", 1.0), ("warn_ess", 0.0)):
            if getattr(self, name) is not None:
                _check_float(name, getattr(self, name), bound)
        if self.min_size > self.capacity:
            raise RepoConfigError(
                f"{PREFIX}min_size={self.min_size} exceeds {PREFIX}capacity={self.capacity}, so no prompt would ever "
                f"replay: set min_size to at most {self.capacity} or raise capacity."
            )
        if self.strategy not in ("full", "none") and self.num_replay > self.capacity:
            raise RepoConfigError(
                f"{PREFIX}num_replay={self.num_replay} exceeds {PREFIX}capacity={self.capacity}, so that many rows are "
                f"never held: set num_replay to at most {self.capacity} or raise capacity."
            )

    @property
    def active(self) -> bool:
        """Whether anything is replayed at all: false for ``strategy=none`` and for λ = 0."""
        return self.strategy != "none" and self.off_policy_coef > 0

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any] | None) -> RepoConfig:
        """Validate a mapping (a dict or an OmegaConf node); missing keys take their defaults.

        Raises:
            RepoConfigError: for an unknown key (naming the nearest known one) or a bad value.
        """
        if mapping is None:
            return cls()
        if not hasattr(mapping, "items"):
            raise RepoConfigError(
                f"algorithm.repo={shown(mapping)} is no mapping: give keys under it, as in "
                "algorithm.repo.strategy=recency."
            )
        known = [field.name for field in dataclasses.fields(cls)]
        values = {str(key): value for key, value in mapping.items()}
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key[:MOST_SHOWN], known, n=1)
                hint = f"did you mean {PREFIX}{near[0]}?" if near else f"known keys are {', '.join(known)}."
                raise RepoConfigError(f"{PREFIX}{shown(key)[1:-1]}={shown(values[key])} is no setting of RePO: {hint}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a plain dict, ready for JSON."""
        return dataclasses.asdict(self)


def lookup(config: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of nested mappings; ``default`` where a part is missing or null."""
    node = config
    for part in path.split("."):
        getter: Callable[..., Any] | None = getattr(node, "get", None)
        if getter is None or not hasattr(node, "items"):  # a list of OmegaConf's has "get" too
            return default
        node = getter(part, None)
        if node is None:
            return default
    return node


def names_function(strategy: object) -> bool:
    """Whether a strategy is a function of the user's, ``package.module:function``."""
    return isinstance(strategy, str) and ":" in strategy


def _check_strategy(value: object) -> None:
    if not isinstance(value, str) or not names_function(value):
        _check_choice("strategy", value, STRATEGY_NAMES, " or package.module:function")
        return
    module, _, function = value.partition(":")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in (*module.split("."), function)):
        raise RepoConfigError(
            f"{PREFIX}strategy={shown(value)} names no function: write package.module:function, dots between names of "
            f"packages and one colon before the function's name."
        )


def _check_choice(name: str, value: object, choices: tuple[str, ...], other: str = "") -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value)[:MOST_SHOWN], choices, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(choices)}{other}."
        raise RepoConfigError(f"{PREFIX}{name}={shown(value)} is unknown: {hint}")


def _check_int(name: str, value: object, least: int, note: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RepoConfigError(f"{PREFIX}{name}={shown(value)} must be an integer of at least {least}{note}.")


def _check_float(name: str, value: object, bound: float, *, inclusive: bool = False) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not good or value < bound or (not inclusive and value == bound):  # type: ignore[operator]  # good: a number
        relation = "at least" if inclusive else "greater than"
        raise RepoConfigError(f"{PREFIX}{name}={shown(value)} must be a finite number {relation} {bound:g}.")
