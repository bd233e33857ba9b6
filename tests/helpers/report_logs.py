"""Logs as verl's file logger writes them, with the keys and the shape of a quickstart's, and no run behind them."""

import json
import math
import random


def steps(arm, seed, count=40, epoch=8):
    """Entries of a run: step 0 is the validation before training; ``arm`` is grpo or repo."""
    draw = random.Random(f"{arm}-{seed}")
    base = 0.46 + 0.02 * random.Random(seed).random()
    entries = [(0, {"val-core/arithmetic/acc/mean@1": base})]
    for step in range(1, count + 1):
        replays = arm == "repo" and step > epoch
        fresh = min(1.0, max(0.0, draw.gauss(0.76, 0.07)))
        age = 4.5 + (step - 1) % epoch if replays else 0.0
        drift = 0.02 * age * abs(draw.gauss(1, 0.3))
        times = {
            "gen": abs(draw.gauss(2.0, 0.2)), "old_log_prob": 0.45, "adv": 0.1, "update_weights": 0.05,
            "repo_select": 0.0005 * replays, "repo_retrieve": 0.09 * replays, "repo_insert": 0.003 * (arm == "repo"),
            "update_actor": 0.7 + 0.3 * replays, "repo_exposed": 0.06 * replays,
            "repo_exposed_adv": 0.02 * replays, "repo_exposed_update_actor": 0.03 * replays,
        }  # fmt: skip
        verls = [value for name, value in times.items() if not name.startswith("repo_")]
        rows = min(step, 2 * epoch) * 128 * (arm == "repo")
        data = {
            **{f"timing_s/{name}": value for name, value in times.items()},
            "timing_s/step": sum(verls) + 0.06,
            "repo/replayed_rows": 128.0 * replays, "repo/prompts_with_replay": 16.0 * replays,
            "repo/age_mean": age, "repo/age_max": age + 4 * replays,
            "repo/score_fresh_mean": 0.3 + 0.004 * step + draw.gauss(0, 0.05),
            "repo/score_replayed_mean": (0.26 + 0.004 * step + draw.gauss(0, 0.05)) * replays,
            "repo/zero_advantage_share_fresh": 1 - fresh, "repo/zero_advantage_share_replayed": 0.25 * replays,
            "repo/effective_prompts_fresh": fresh,
            "repo/effective_prompts_all": min(1.0, fresh + 0.12 * replays),
            "repo/update_tokens": 1850.0 * (1 + replays),
            "repo/clip_low_replayed": 0.2 * drift * replays, "repo/clip_high_replayed": 0.05 * drift * replays,
            "repo/ratio_mean_replayed": 1 - 0.1 * drift if replays else 0.0,
            "repo/ratio_max_replayed": math.exp(6 * drift) if replays else 0.0,
            "repo/ess_replayed": math.exp(-drift) if replays else 0.0,
            "repo/effective_steps": float(step), "repo/buffer_rows": float(rows), "repo/buffer_tokens": 5.4 * rows,
            "repo/buffer_bytes": 46.0 * rows,
        }  # fmt: skip
        if step % 20 == 0:
            data["val-core/arithmetic/acc/mean@1"] = base + 0.0015 * step + draw.gauss(0, 0.01)
        entries.append((step, data))
    return entries


def write_log(folder, entries, tail=""):
    """``metrics.jsonl`` in a new folder; ``tail`` follows the last line."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": step, "data": data}) + "\n" for step, data in entries]
    (folder / "metrics.jsonl").write_text("".join(lines) + tail)
    return folder


def write_seeds(root, seeds=3, count=40):
    """``seed0/grpo``, ``seed0/repo``, ``seed1/grpo``, …; the folders."""
    arms = [(seed, arm) for seed in range(seeds) for arm in ("grpo", "repo")]
    return [write_log(root / f"seed{seed}" / arm, steps(arm, seed, count)) for seed, arm in arms]
