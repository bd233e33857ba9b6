"""The driver watches the processes that a step needs: one that dies ends the run with one sentence.

Works around ``verl/trainer/ppo/v1/replay_buffer.py:449`` and ``:572``: verl waits for rollouts in a loop that only
looks at TransferQueue, whose clients wait for a dead actor without a time limit. A run whose worker died would wait
for ever, or train on the rows that are left. Delete it once verl's loop ends when one of its workers is dead.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import ray
import transfer_queue.interface as tq
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from repo_verl.step_folders import step_of
from repo_verl.verl_workarounds.tracker import named_by_tracker

logger = logging.getLogger(__name__)

LOOK_S = 1.0  # between looks
ANSWER_S = 5.0  # longest wait for answers where a step depends on them
PATIENCE_S = 5.0  # after a death, in which the driver may find it out by itself; then it is interrupted
INTERRUPT = signal.SIGRTMAX - 5  # sent to the driver's main thread; nothing else uses it


class WorkerDiedError(RuntimeError):
    """A process that the run needs died; one sentence naming it, the step and how to go on."""


def engine_dead(server: Any) -> bool:
    """Whether the engine processes of a rollout server, in which this runs, died."""
    return bool(getattr(getattr(server, "engine", None), "errored", False))


def find_actors(trainer: Any, agent_loop_manager: Any) -> dict[str, tuple[ActorHandle, bool]]:
    """The Ray actors that a step needs: name for messages -> handle and whether it serves a rollout engine."""
    servers, rewards = getattr(trainer, "llm_server_manager", None), trainer.reward_loop_manager
    engine = f"{trainer.config.actor_rollout_ref.rollout.name} server"
    units = (tq._TQ_STORAGE or {}).get("SimpleStorage") or {}
    kinds = {
        "actor worker": getattr(getattr(trainer, "actor_rollout_wg", None), "workers", []),
        "critic worker": getattr(getattr(trainer, "critic_wg", None), "workers", []),
        "reference worker": getattr(getattr(trainer, "ref_policy_wg", None), "workers", []),
        engine: _servers(servers),
        "reward model server": _servers(getattr(rewards, "reward_model_manager", None)),
        "load balancer": [getattr(servers, "global_load_balancer", None)],
        "reward worker": getattr(rewards, "reward_loop_workers", []),
        "agent loop worker": getattr(agent_loop_manager, "agent_loop_workers", []),
        "TransferQueue controller": [tq._TQ_CONTROLLER],
        "TransferQueue storage unit": list(units.values()),
    }
    found: dict[str, tuple[ActorHandle, bool]] = {}
    for kind, handles in kinds.items():
        for number, handle in enumerate(handles or []):
            known = any(handle == other for other, _ in found.values())  # the reference may live in the actor
            if isinstance(handle, ActorHandle) and not known:
                found[f"{kind} {number} of {len(handles)}"] = (handle, kind in (engine, "reward model server"))
    return found


def _servers(manager: Any) -> list[Any]:
    return [server for replica in getattr(manager, "rollout_replicas", []) for server in replica.servers]


class Watch:
    """Looks whether the actors of :func:`find_actors` live: a request to each is always under way; a death ends it."""

    def __init__(self, actors: Mapping[str, tuple[ActorHandle, bool]]) -> None:
        self._actors = dict(actors)
        self._pings: dict[str, ray.ObjectRef] = {}
        self._looking = threading.Lock()
        self._ending = threading.Lock()
        self._over = threading.Event()
        self._saving = False
        self.died: str | None = None  # what died, once something did

    def look(self, seconds: float = 0.0) -> str | None:
        """Ask all actors, wait for answers at most so long, and return what died; a busy actor counts as alive."""
        with self._looking:
            self._read(0.0)
            for name, (actor, serves) in self._actors.items():
                if name not in self._pings:
                    ask = actor.__ray_call__.remote(engine_dead) if serves else actor.__ray_ready__.remote()
                    self._pings[name] = ask
            self._read(seconds)
            return self.died

    def _read(self, seconds: float) -> None:
        if not self._pings:
            return
        waiting = list(self._pings.values())
        answered = set(ray.wait(waiting, num_returns=len(waiting), timeout=seconds)[0])
        for name in [name for name, ping in self._pings.items() if ping in answered]:
            try:
                if ray.get(self._pings.pop(name)) is True and self._actors[name][1]:
                    self.died = self.died or f"the engine process of {name}"
            except ActorUnavailableError:
                continue  # a network fault: Ray does not know yet
            except RayActorError:
                self.died = self.died or name
            except RayError as error:
                logger.warning("RePO: %s can't be watched: %s", name, str(error).splitlines()[-1])
                del self._actors[name]

    def check(self, seconds: float = 0.0) -> None:
        """Raise :class:`WorkerDiedError` if something died; 0 seconds reads what is known already."""
        died = self.look(seconds) if seconds else self.died
        if died is not None:
            raise WorkerDiedError(died)

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Don't interrupt the block: a checkpoint that can still be finished is one to resume from."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def start(self) -> None:
        """Look every second from a thread; interrupt the calling thread if it goes on for long after a death."""
        waiter = threading.current_thread()
        if waiter is threading.main_thread():
            signal.signal(INTERRUPT, _interrupt)
        threading.Thread(target=self._run, args=(waiter,), name="repo_watch", daemon=True).start()

    def stop(self) -> None:
        """End the thread; no interruption after this."""
        with self._ending:
            self._over.set()

    def _run(self, waiter: threading.Thread) -> None:
        while not self._over.wait(LOOK_S):
            try:
                if self.look() is not None:
                    break
            except Exception:
                if not self._over.is_set() and ray.is_initialized():
                    logger.exception("RePO: the watch over the run's processes ended")
                return
        patience = time.monotonic() + PATIENCE_S
        while not self._over.wait(LOOK_S):
            with self._ending:
                if time.monotonic() < patience or self._saving or self._over.is_set():
                    continue
                if waiter is threading.main_thread() and waiter.ident is not None:
                    signal.pthread_kill(waiter.ident, INTERRUPT)
                    patience = time.monotonic() + PATIENCE_S


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt  # the one exception that ends ray.get


def watch_queue(queue: Any, watch: Watch) -> None:
    """Make a look at verl's rollout queue raise after a death, and a sampled batch count only if nothing died.

    A prompt whose generation or scoring died counts as finished for verl, with fewer rows or none.
    """
    sample, look = queue.sample, queue._sync_metadata_from_transfer_queue

    def checked_look() -> None:
        watch.check()
        look()

    def checked_sample(*args: Any, **kwargs: Any) -> Any:
        sampled = sample(*args, **kwargs)
        watch.check(ANSWER_S)
        return sampled

    queue.sample, queue._sync_metadata_from_transfer_queue = checked_sample, checked_look


def remedy(trainer: Any) -> str:
    """How to go on after a death, from verl's ``trainer`` block and its tracker of finished checkpoints."""
    root = trainer.default_local_dir
    folder = named_by_tracker(root)
    if folder is None:
        return f"{root} has no finished checkpoint (trainer.save_freq), so a restart begins from scratch."
    step = step_of(folder)
    if trainer.resume_mode == "auto":
        return f"restart the same command, it resumes from global_step_{step}."
    return f"restart with trainer.resume_mode=auto to resume from global_step_{step} of {root}."


@contextlib.contextmanager
def watching(trainer: Any, agent_loop_manager: Any) -> Iterator[Watch]:
    """Watch the processes that the steps of the block need, of a ``PPOTrainer`` whose workers are there.

    Raises:
        WorkerDiedError: one of them died: which, in which step, and what to resume from.
    """
    watch = Watch(find_actors(trainer, agent_loop_manager))
    watch_queue(trainer.replay_buffer, watch)
    try:
        try:
            watch.start()
            yield watch
        finally:
            watch.stop()
    except BaseException as error:
        died = _died(watch, error)
        if died is None:
            raise
        sentence = f"{died} died in step {trainer.global_steps}; {remedy(trainer.config.trainer)}"
        raise WorkerDiedError(sentence) from (None if isinstance(error, WorkerDiedError) else error)


def _died(watch: Watch, error: BaseException) -> str | None:
    """What died, if that is behind an error; None if it is not."""
    if watch.died is not None or not isinstance(error, Exception) or not ray.is_initialized():
        return watch.died
    died = watch.look(ANSWER_S)
    if died is None and isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError):
        return f"a Ray actor ({str(error).splitlines()[0]})"
    return died
