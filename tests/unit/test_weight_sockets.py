"""Names of the sockets over which weights go to vLLM."""

import hashlib

import pytest

from repo_verl.verl_workarounds.weight_sockets import own_handle, own_job

JOB, SESSION = "01000000", "session_2026-11-23_06-08-14_123456_26046"
HANDLE = f"ipc:///tmp/rl-colocate-zmq-{JOB}-replica-3-rank-1.sock"
DIGEST = hashlib.sha256(SESSION.encode()).hexdigest()[:12]


def test_both_ends_write_the_same_name():
    assert own_handle(HANDLE, JOB, SESSION) == f"ipc:///tmp/rl-colocate-zmq-{JOB}.{DIGEST}-replica-3-rank-1.sock"
    # verl's other end puts what it reads where the job's id stood
    assert own_handle(HANDLE, JOB, SESSION) == HANDLE.replace(JOB, own_job(JOB, SESSION))


def test_clusters_jobs_and_ranks_differ():
    names = {
        own_handle(f"ipc:///tmp/rl-colocate-zmq-{job}-replica-{replica}-rank-0.sock", job, session)
        for job in ("01000000", "02000000")
        for session in (SESSION, SESSION + "0")
        for replica in (0, 1)
    }
    assert len(names) == 8


def test_a_name_fits_a_unix_socket():
    handle = "ipc:///tmp/rl-colocate-zmq-ffffffff-replica-9999-rank-9999.sock"
    path = own_handle(handle, "ffffffff", SESSION).removeprefix("ipc://")
    assert len(path) < 108  # sun_path of Linux, with its closing zero


@pytest.mark.parametrize("handle", ["ipc:///tmp/other-02000000-replica-0-rank-0.sock", "tcp://127.0.0.1:1"])
def test_another_verl_is_refused(handle):
    with pytest.raises(RuntimeError, match=r"does not name the Ray job '01000000'.*repo-verl check"):
        own_handle(handle, JOB, SESSION)
