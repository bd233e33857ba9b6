"""What the learning experiment runs: tasks, arms and seeds; one factor at a time around `recency`."""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = (0, 1, 2, 3, 4)
STEPS = 64
EVALUATE_EVERY = 16
VISIT = 8
"""Steps in which every training prompt comes once."""
LEARNING_RATE = "1e-4"
"""Of every arm: of `PILOT_RATES`, the one with GRPO's best held-out accuracy on `PILOT_SEED`, which no result uses."""

PILOT_SEED = 100
PILOT_RATES = ("3e-5", "1e-4", "3e-4", "1e-3")


@dataclass(frozen=True)
class Task:
    """Arithmetic problems and the base model that begins on them.

    Attributes:
        form: of `data_prep arithmetic`, two digits.
        warmup: problems that the base model is trained on.
        target: accuracy of the base model, sampled, as lowest and highest share.
        arms: names in `ARMS`, each with the number of seeds.
    """

    form: str
    warmup: int
    target: tuple[str, str]
    arms: tuple[tuple[str, int], ...]


ARMS: dict[str, tuple[str, ...]] = {
    "grpo": ("algorithm.repo.strategy=none",),
    "recency": ("algorithm.repo.strategy=recency",),
    "reward": ("algorithm.repo.strategy=reward",),
    "full": ("algorithm.repo.strategy=full",),
    "variance": ("algorithm.repo.strategy=variance",),
    "random": ("algorithm.repo.strategy=random",),
    "mixed": ("algorithm.repo.strategy=recency", "algorithm.repo.advantage=mixed"),
    "rows": ("algorithm.repo.strategy=recency", "algorithm.repo.normalize=rows"),
}
"""Overrides of an arm. `grpo` is RePO without replay, which is verl's GRPO bit for bit and logs the same metrics."""

TASKS = {
    "sums": Task(
        "sums",
        14_000,
        ("0.3", "0.4"),
        (
            ("grpo", 5), ("recency", 5), ("reward", 5),
            ("full", 3), ("variance", 3), ("random", 3), ("mixed", 3), ("rows", 3),
        ),
    ),
    "chains": Task("a+b-c", 40_000, ("0.15", "0.25"), (("grpo", 5), ("recency", 5))),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training run of the experiment."""

    task: str
    arm: str
    seed: int
    rate: str = LEARNING_RATE

    @property
    def name(self) -> str:
        """Of its result's file."""
        return f"{self.task}_{self.arm}_seed{self.seed}"


def planned(tasks: list[str], arms: list[str] | None = None) -> list[Run]:
    """All runs, seed by seed, so that a stopped experiment has whole pairs."""
    return [
        Run(task, arm, seed)
        for task in tasks
        for seed in SEEDS
        for arm, seeds in TASKS[task].arms
        if seed < seeds and (arms is None or arm in arms)
    ]


def pilots() -> list[Run]:
    """GRPO with every learning rate that was tried."""
    return [Run("sums", f"pilot-{rate}", PILOT_SEED, rate) for rate in PILOT_RATES]


def overrides(run: Run) -> list[str]:
    """Hydra overrides of a run beside its paths: the quickstart's configuration with these changes."""
    arm = ARMS["grpo"] if run.arm.startswith("pilot") else ARMS[run.arm]
    return [
        *arm,
        f"algorithm.repo.seed={run.seed}", f"data.seed={run.seed}", f"actor_rollout_ref.rollout.seed={run.seed}",
        f"actor_rollout_ref.actor.optim.lr={run.rate}", f"trainer.total_training_steps={STEPS}",
        f"trainer.test_freq={EVALUATE_EVERY}", "trainer.total_epochs=100000", "trainer.logger=[file]",
    ]  # fmt: skip
