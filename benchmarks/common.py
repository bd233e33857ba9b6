"""Shared by the benchmarks: where results go and what machine they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from repo_verl.report import provenance

RESULTS = Path(__file__).resolve().parent / "results"


def write_result(name: str, values: dict[str, Any]) -> None:
    """Print the values and write them with machine, commit and versions to ``results/NAME.json``."""
    for key, value in values.items():
        print(f"{key:<32} {value}")
    around = provenance(None)
    around.pop("seed")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({**values, **around}, indent=2) + "\n")
    print(f"written: benchmarks/results/{name}.json")
