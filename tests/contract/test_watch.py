"""The watch over a run's processes, with Ray actors that are killed; no verl run."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import ray

from repo_verl.verl_workarounds import watch
from repo_verl.verl_workarounds.watch import Watch, WorkerDiedError, find_actors, remedy, watch_queue, watching

pytestmark = [pytest.mark.contract, pytest.mark.serial]


@pytest.fixture(scope="module", autouse=True)
def session():
    ray.init(num_cpus=8, include_dashboard=False)
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class Actor:
    def __init__(self):
        self.engine = SimpleNamespace(errored=False)

    def pid(self):
        return os.getpid()

    def sleep(self, seconds):
        time.sleep(seconds)

    def lose_engine(self):
        self.engine.errored = True


class Queue:
    """What verl's rollout queue does, as far as the watch wraps it."""

    def __init__(self):
        self.looks = 0

    def _sync_metadata_from_transfer_queue(self):
        self.looks += 1

    def sample(self, wait=lambda: None):
        self._sync_metadata_from_transfer_queue()
        wait()
        return "batch"


def kill(actor):
    os.kill(ray.get(actor.pid.remote()), signal.SIGKILL)


@pytest.fixture(scope="module")
def unharmed(session):
    return [Actor.remote() for _ in range(4)]


@pytest.fixture
def trainer(tmp_path, unharmed):
    settings = SimpleNamespace(default_local_dir=str(tmp_path), resume_mode="auto")
    actor, reward_worker = Actor.remote(), Actor.remote()
    other, server, balancer, loop = unharmed
    ray.get([each.pid.remote() for each in (actor, reward_worker, *unharmed)])
    made = SimpleNamespace(
        actor_rollout_wg=SimpleNamespace(workers=[actor]),
        ref_policy_wg=SimpleNamespace(workers=[actor]),
        reward_loop_manager=SimpleNamespace(reward_loop_workers=[other, reward_worker]),
        llm_server_manager=SimpleNamespace(
            rollout_replicas=[SimpleNamespace(servers=[server])], global_load_balancer=balancer
        ),
        replay_buffer=Queue(),
        global_steps=7,
        config=SimpleNamespace(
            trainer=settings, actor_rollout_ref=SimpleNamespace(rollout=SimpleNamespace(name="vllm"))
        ),
    )
    made.actor, made.reward_worker = actor, reward_worker
    made.loops = SimpleNamespace(agent_loop_workers=[loop])
    return made


def test_the_actors_of_a_step_are_found_each_once(trainer):
    found = find_actors(trainer, trainer.loops)
    assert list(found) == [
        "actor worker 0 of 1", "vllm server 0 of 1", "load balancer 0 of 1", "reward worker 0 of 2",
        "reward worker 1 of 2", "agent loop worker 0 of 1",
    ]  # fmt: skip
    assert [name for name, (_, serves) in found.items() if serves] == ["vllm server 0 of 1"]


def test_a_dead_actor_and_a_dead_engine_are_seen_and_a_busy_actor_lives():
    actors = {name: (Actor.remote(), name == "server") for name in ("one", "two", "server")}
    seen = Watch(actors)
    assert seen.look(30) is None
    actors["one"][0].sleep.remote(1e6)
    assert seen.look(0.5) is None and seen.look(0.5) is None
    ray.get(actors["server"][0].lose_engine.remote())
    assert seen.look(5) == "the engine process of server"
    seen = Watch({"two": actors["two"]})
    kill(actors["two"][0])
    assert seen.look(5) == "two"
    with pytest.raises(WorkerDiedError, match="two"):
        seen.check()


def test_an_actor_that_cannot_be_asked_is_left_out_and_the_others_are_watched(caplog):
    @ray.remote(num_cpus=0)
    class Odd:
        @property
        def engine(self):
            raise OSError("no such thing")

    other = Actor.remote()
    seen = Watch({"odd": (Odd.remote(), True), "other": (other, False)})
    assert seen.look(30) is None and "odd can't be watched" in caplog.text
    kill(other)
    assert seen.look(5) == "other"


def test_a_batch_sampled_after_a_death_is_refused():
    actor, queue = Actor.remote(), Queue()
    seen = Watch({"a reward worker": (actor, False)})
    assert seen.look(30) is None
    watch_queue(queue, seen)
    assert queue.sample() == "batch" and queue.looks == 1
    with pytest.raises(WorkerDiedError, match="a reward worker"):
        queue.sample(lambda: kill(actor))  # its prompts count as finished for verl
    with pytest.raises(WorkerDiedError):
        queue._sync_metadata_from_transfer_queue()
    assert queue.looks == 2


def block_in_ray_get():
    ray.get(Actor.remote().sleep.remote(60))


def block_in_a_lock():
    threading.Event().wait(60)


@pytest.mark.parametrize("block", [block_in_ray_get, block_in_a_lock, lambda: time.sleep(60)])
def test_a_driver_that_waits_for_ever_is_interrupted(trainer, block, monkeypatch):
    monkeypatch.setattr(watch, "PATIENCE_S", 1.0)
    begun = time.monotonic()
    with pytest.raises(
        WorkerDiedError, match=r"^reward worker 1 of 2 died in step 7; .* so a restart begins from scratch\.$"
    ):
        with watching(trainer, trainer.loops):
            kill(trainer.reward_worker)
            begun = time.monotonic()
            block()
    assert time.monotonic() - begun < 10


def test_a_checkpoint_under_way_is_finished(trainer, monkeypatch):
    monkeypatch.setattr(watch, "PATIENCE_S", 0.5)
    saved = []
    with pytest.raises(WorkerDiedError, match="actor worker 0 of 1"):
        with watching(trainer, trainer.loops) as seen:
            kill(trainer.actor)
            with seen.undisturbed():
                time.sleep(4)
                saved.append(True)
            time.sleep(30)
    assert saved


def test_a_call_of_a_dead_actor_gets_the_sentence_at_once(trainer):
    begun = time.monotonic()
    with pytest.raises(WorkerDiedError, match="actor worker 0 of 1 died in step 7; ") as caught:
        with watching(trainer, trainer.loops):
            kill(trainer.actor)
            begun = time.monotonic()
            ray.get(trainer.actor.sleep.remote(60))
    assert time.monotonic() - begun < 4 and isinstance(caught.value.__cause__, ray.exceptions.RayActorError)


def test_other_errors_pass_and_a_clean_end_leaves_nothing(trainer):
    with pytest.raises(ValueError, match="mine"):
        with watching(trainer, trainer.loops):
            raise ValueError("mine")
    with watching(trainer, trainer.loops) as seen:
        pass
    kill(trainer.actor)
    time.sleep(2.5)
    assert seen.died is None and not [t for t in threading.enumerate() if t.name == "repo_watch"]


def test_the_remedy_names_the_last_finished_checkpoint(tmp_path):
    settings = SimpleNamespace(default_local_dir=str(tmp_path), resume_mode="auto")
    assert remedy(settings).startswith(f"{tmp_path} has no finished checkpoint")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("40")
    assert remedy(settings).startswith(f"{tmp_path} has no finished checkpoint")  # its folder is not there
    (tmp_path / "global_step_40").mkdir()
    assert remedy(settings) == "restart the same command, it resumes from global_step_40."
    settings.resume_mode = "disable"
    assert remedy(settings).startswith("restart with trainer.resume_mode=auto to resume from global_step_40 of ")
