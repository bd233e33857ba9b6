"""The README's table of quickstart runs with several seeds.

for s in 0 1 2; do OUTPUT=runs/seed$s bash run_scripts/quickstart.sh --seed $s; done
python benchmarks/quickstart_table.py runs/seed*/summary.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from common import RESULTS
from learning_statistics import difference

ROWS = (
    ("held-out accuracy before", "val_accuracy_first", 100, "{:.1f} %"),
    ("held-out accuracy after", "val_accuracy_last", 100, "{:.1f} %"),
    ("effective prompts, fresh rows", "effective_prompts_fresh", 100, "{:.1f} %"),
    ("effective prompts, all rows", "effective_prompts_all", 100, "{:.1f} %"),
    ("effective steps", "effective_steps", 1, "{:.0f}"),
    ("replayed rows", "replayed_rows", 1, "{:.0f}"),
    ("seconds per step (median)", "seconds_per_step", 1, "{:.2f}"),
    ("tokens trained", "tokens_trained", 1, "{:.0f}"),
)


def main() -> None:
    """Print the table as Markdown and keep the summaries under ``results/``."""
    summaries = [json.loads(Path(path).read_text()) for path in sys.argv[1:]]
    for summary in summaries:
        (RESULTS / f"quickstart_seed{summary['seed']}.json").write_text(json.dumps(summary, indent=2) + "\n")
    seeds = ", ".join(str(summary["seed"]) for summary in summaries)
    print(f"| seeds {seeds} | GRPO | RePO |\n|---|---|---|")
    for title, key, factor, form in ROWS:
        cells = [" / ".join(form.format(factor * s[arm][key]) for s in summaries) for arm in ("grpo", "repo")]
        print(f"| {title} | {' | '.join(cells)} |")
    gaps = [100 * (s["repo"]["val_accuracy_last"] - s["grpo"]["val_accuracy_last"]) for s in summaries]
    if len(gaps) > 2:
        print(f"\nheld-out accuracy after, RePO - GRPO, paired, 95 % t-interval: {difference(gaps)}")


if __name__ == "__main__":
    main()
