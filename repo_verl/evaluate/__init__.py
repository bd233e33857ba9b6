"""Evaluation on math benchmarks: `repo-verl evaluate` and `compare`. Here are its sampling settings."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

MANY_SAMPLES: Mapping[str, int] = {"aime24": 32, "aime25": 32, "amc23": 32}
"""Samples per problem in the authors' evaluation (evaluate_math.slurm); 1 on every other benchmark."""


@dataclass(frozen=True)
class Protocol:
    """Sampling settings; the defaults are the paper's.

    Attributes:
        temperature: 0 is greedy.
        top_k: -1 for no limit.
        samples: samples per problem, by benchmark; ``default_samples`` of every other one.
        seed: each (problem, sample) has a seed of its own, made of this one.
        template: ``boxed`` or ``think``, where the answer is looked for; see ``repo_verl.rewards``.
        max_model_len: longest prompt and response together; None for the model's own.
        max_num_seqs: responses generated at once. With 1 a response does not depend on what else is generated.
    """

    temperature: float = 0.2
    top_p: float = 0.95
    top_k: int = 50
    max_tokens: int = 2048
    samples: Mapping[str, int] = field(default_factory=lambda: dict(MANY_SAMPLES))
    default_samples: int = 1
    seed: int = 42
    template: str = "boxed"
    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 256

    def __post_init__(self) -> None:
        """Raises: ValueError naming key, value and remedy of a setting that cannot work."""
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be 0 (greedy) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be above 0 and at most 1.")
        if self.top_k != -1 and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be 1 or more, or -1 for no limit.")
        counts = {"max_tokens": self.max_tokens, "max_num_seqs": self.max_num_seqs, "samples": self.default_samples}
        counts |= {f"samples {name}": count for name, count in self.samples.items()}
        counts |= {} if self.max_model_len is None else {"max_model_len": self.max_model_len}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name}={value} must be 1 or more.")

    def samples_of(self, benchmark: str) -> int:
        """Samples per problem of a benchmark."""
        return self.samples.get(benchmark, self.default_samples)

    def seed_of(self, benchmark: str, problem: str, sample: int) -> int:
        """The seed of one sample: 31 bits of BLAKE2b, so that no sample's seed depends on the order of problems."""
        text = f"{self.seed}/{benchmark}/{problem}/{sample}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") >> 1
