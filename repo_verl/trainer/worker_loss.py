"""The loss that the actor workers run, verl's own over fresh rows plus the replay term, and the call that runs it.

The loss is sent to the workers with verl's ``set_loss_fn``. Fresh rows go through verl's ``ppo_loss``, which is shown a
response mask of zeros for all other rows: its aggregation, entropy and KL terms see only fresh rows. Fresh rows that
were pruned for their zero advantage stay in verl's normalisers: its token count is that of all fresh rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from repo_verl.losses import LOG_RATIO_LIMIT, clipped_surrogate, weighted_objective
from repo_verl.trainer.guards import bad_rows, stop_update
from repo_verl.trainer.layout import FRESH, FRESH_SCALE, FRESH_TOKENS, ORIGIN, REPLAYED, WEIGHT, Layout

REPORT = "repo/"  # prefix of the worker's sums; the driver turns them into the metrics of repo_verl.metrics

TOKEN_MEANS = {"actor/pg_clipfrac": "all", "actor/ppo_kl": "kept", "actor/pg_clipfrac_lower": "all"}
"""verl's token means, and the fresh tokens of the mini-batch that each is a mean of."""


def repo_loss(
    config: ActorConfig,
    clip_ratio_c: float | None,
    model_output: dict[str, torch.Tensor],
    data: TensorDict,
    dp_group: Any = None,
    *,
    on_nonfinite: str | None = None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Loss of one micro-batch; without RePO's fields verl's own loss, bit for bit.

        loss = fresh_scale · ppo_loss(fresh rows) - dp_size · Σ_replayed w_i Σ_t s_it

    Args:
        config: verl's actor settings.
        clip_ratio_c: dual-clip bound of replayed rows, or None.
        model_output: of verl's engine; ``log_probs`` is nested (B, prompt + response).
        data: the micro-batch; replayed rows have a loss mask of zeros and their true response mask.
        dp_group: the data-parallel group, handed on to verl.
        on_nonfinite: ``stop`` to raise for values that are not finite, ``skip`` to count the rows that have them (verl
            skips the optimizer step for its gradient norm); None to look for none.

    Returns:
        the loss (verl averages gradients over ranks) and metrics, the same keys for every micro-batch.

    Raises:
        NonFiniteError: naming the rows.
    """
    log_prob = no_padding_2_padding(model_output["log_probs"], data)
    replay = ORIGIN in data.keys()
    origin = data[ORIGIN] if replay else torch.full((len(data),), FRESH, device=log_prob.device)
    fresh_view = _fresh_view(data, origin) if replay else data
    loss, metrics = ppo_loss(config, model_output, fresh_view, dp_group)
    rows = data.select("old_log_probs", "advantages", "response_mask").to_padded_tensor()
    fresh_loss = float(metrics["actor/pg_loss"].values[0])
    report = _fresh_report(config, log_prob.detach(), rows, origin)
    if replay:
        scale = float(data[FRESH_SCALE][0])
        objective, replay_report = _replay_term(config, clip_ratio_c, log_prob, rows, data)
        loss = loss * scale - data["dp_size"] * objective
        fresh_loss *= scale
        _weigh_token_means(metrics, report["fresh_tokens"], data)
    else:
        replay_report = _empty_replay_report()
    report["loss_fresh"] = fresh_loss
    report["nonfinite_rows"] = float(_guard(on_nonfinite, data, log_prob.detach(), rows, loss.detach()))
    sums = {**report, **{key: value for key, value in replay_report.items() if "max" not in key}}
    metrics.update(Metric.from_dict({REPORT + key: sums[key] for key in sums}, aggregation=AggregationType.SUM))
    metrics[REPORT + "ratio_max"] = Metric(value=replay_report["ratio_max"], aggregation=AggregationType.MAX)
    return loss, metrics


def _guard(
    on_nonfinite: str | None, data: TensorDict, log_prob: torch.Tensor, rows: TensorDict, loss: torch.Tensor
) -> int:
    """Count rows of the micro-batch with a value that is not finite, or raise for them with ``stop``."""
    if on_nonfinite is None:
        return 0
    tensors = {"log-prob": log_prob, "stored log-prob": rows["old_log_probs"], "advantage": rows["advantages"]}
    found = bad_rows(tensors, rows["response_mask"].bool())
    if not found and not bool(torch.isfinite(loss)):  # a masked token: 0 times NaN is NaN
        found = bad_rows({"log-prob": log_prob}, torch.ones_like(log_prob, dtype=torch.bool))
    if on_nonfinite == "stop":
        stop_update(data, found, float(loss))
    return len(found)


def _fresh_view(data: TensorDict, origin: torch.Tensor) -> TensorDict:
    """A shallow copy whose response mask is zero on rows that are not fresh; its token count is of all fresh rows."""
    keep = (origin == FRESH).tolist()
    rows = [row * kept for row, kept in zip(data["response_mask"].unbind(), keep, strict=True)]
    view = data.copy()
    view["response_mask"] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    tu.assign_non_tensor(view, batch_num_tokens=max(int(data[FRESH_TOKENS][0]), 1))
    return view


def _fresh_report(
    config: ActorConfig, log_prob: torch.Tensor, rows: TensorDict, origin: torch.Tensor
) -> dict[str, float]:
    """Fresh tokens and how many of them either bound cuts."""
    mask = rows["response_mask"].bool() & (origin == FRESH).unsqueeze(-1)
    cut = clipped_surrogate(log_prob, rows["old_log_probs"], rows["advantages"], *_clip_range(config))
    return {
        "fresh_tokens": float(mask.sum()),
        "fresh_clipped_low": float((cut.clipped_low & mask).sum()),
        "fresh_clipped_high": float((cut.clipped_high & mask).sum()),
    }


def _replay_term(
    config: ActorConfig, clip_ratio_c: float | None, log_prob: torch.Tensor, rows: TensorDict, data: TensorDict
) -> tuple[torch.Tensor, dict[str, float]]:
    """The replay objective of the micro-batch and what it reports."""
    index = torch.nonzero(data[ORIGIN] == REPLAYED).flatten()
    if index.numel() == 0:
        return log_prob.sum() * 0.0, _empty_replay_report()
    current, behavior = (_precise(one[index]) for one in (log_prob, rows["old_log_probs"]))
    advantages, mask = rows["advantages"][index], rows["response_mask"][index].bool()
    surrogate = clipped_surrogate(current, behavior, advantages, *_clip_range(config), clip_ratio_c)
    objective = weighted_objective(surrogate.value, mask, data[WEIGHT][index])
    (gradient,) = torch.autograd.grad(objective, current, retain_graph=True)
    log_ratio = torch.where(mask, current.detach() - behavior, torch.zeros_like(behavior))
    sequence_weight = log_ratio.double().sum(-1).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    ratio = surrogate.ratio.detach()[mask].double()
    return objective, {
        "rows": float(index.numel()),
        "tokens": float(ratio.numel()),
        "ratio_sum": float(ratio.sum()),
        "ratio_max": float(ratio.max()) if ratio.numel() else 0.0,
        "clipped_low": float((surrogate.clipped_low & mask).sum()),
        "clipped_high": float((surrogate.clipped_high & mask).sum()),
        "weight_sum": float(sequence_weight.sum()),
        "weight_square_sum": float(sequence_weight.square().sum()),
        "gradient_square_sum": float(gradient.double().square().sum()),
        "loss_replayed": -float(objective.detach()) * data["dp_size"],
    }


def _precise(log_prob: torch.Tensor) -> torch.Tensor:
    """Log-probs of half precision in float32, in which their difference is exact; others as they are."""
    return log_prob.to(torch.promote_types(log_prob.dtype, torch.float32))


def _empty_replay_report() -> dict[str, float]:
    keys = ("rows", "tokens", "ratio_sum", "ratio_max", "clipped_low", "clipped_high", "weight_sum")
    return dict.fromkeys((*keys, "weight_square_sum", "gradient_square_sum", "loss_replayed"), 0.0)


def _weigh_token_means(metrics: dict[str, Any], kept_tokens: float, data: TensorDict) -> None:
    """Make verl's per-micro-batch token means means over the mini-batch.

    verl averages them over micro-batches, of which some now hold no fresh row. The clip fractions are shares of all
    fresh tokens, pruned ones (never clipped) included; the KL estimate is a mean over the kept ones.
    """
    for key, tokens in TOKEN_MEANS.items():
        total = data["batch_num_tokens"] if tokens == "kept" else int(data[FRESH_TOKENS][0])
        share = kept_tokens * data["dp_size"] / max(total, 1)
        metrics[key] = Metric(value=metrics[key].values[0] * share, aggregation=AggregationType.SUM)


def _clip_range(config: ActorConfig) -> tuple[float, float]:
    low, high = config.clip_ratio_low, config.clip_ratio_high
    return (config.clip_ratio if low is None else low), (config.clip_ratio if high is None else high)


@contextlib.contextmanager
def watched_update(group: Any, layout: Layout | None) -> Iterator[tuple[list[dict[str, float]], list[float]]]:
    """Wrap ``update_actor`` of the actor's worker group for the duration of the block.

    Yields a list of RePO's sums and a list of gradient norms, one entry per optimizer step, filled by the call. Without
    a layout, verl's batch is left as it is.
    """
    reports: list[dict[str, float]] = []
    grad_norms: list[float] = []
    stock = group.update_actor

    def update_actor(batch: KVBatchMeta) -> Any:
        if layout is not None:
            batch.extra_info["mini_batch_size"] = layout.mini_batch_rows
            if layout.micro_batch_rows is not None:
                batch.extra_info["micro_batch_size_per_gpu"] = layout.micro_batch_rows
        output = stock(batch)
        found = dict(output["metrics"])
        columns = {key: found.pop(key) for key in list(found) if key.startswith(REPORT)}
        names = [key.removeprefix(REPORT) for key in columns]
        reports.extend(dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True))
        grad_norms.extend(found["grad_norm"])
        tu.assign_non_tensor_data(output, "metrics", found)
        return output

    group.update_actor = update_actor
    try:
        yield reports, grad_norms
    finally:
        group.update_actor = stock
