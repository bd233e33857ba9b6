"""Memory that is left, of files like the kernel's."""

from repo_verl.trainer.run_warnings import available_memory

GIB = 2**30


def test_memory_is_the_least_of_kernel_and_container(tmp_path):
    meminfo, own = tmp_path / "meminfo", tmp_path / "no such file"
    meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable: {8 * 2**20} kB\n")
    assert available_memory(meminfo, tmp_path, own) == 8 * GIB
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(meminfo, tmp_path, own) == 8 * GIB
    (tmp_path / "memory.max").write_text(f"{4 * GIB}\n")
    assert available_memory(meminfo, tmp_path, own) == 2 * GIB


def test_memory_of_a_job_has_the_limits_of_its_group_and_of_those_above(tmp_path):
    meminfo, own = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text(f"MemAvailable: {64 * 2**20} kB\n")
    own.write_text("1:name=systemd:/old\n0::/system.slice/job_7/step_0\n")
    job = tmp_path / "system.slice" / "job_7"
    (job / "step_0").mkdir(parents=True)
    for folder, limit, used in ((job / "step_0", "max", 2), (job, 16 * GIB, 4 * GIB), (job.parent, 48 * GIB, 8 * GIB)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("inactive_file 0\n")
    assert available_memory(meminfo, tmp_path, own) == 12 * GIB
    (job.parent / "memory.max").write_text(f"{9 * GIB}\n")
    assert available_memory(meminfo, tmp_path, own) == 1 * GIB
    own.write_text("0::/../../elsewhere\n")
    assert available_memory(meminfo, tmp_path, own) == 64 * GIB, "a group that is not mounted here"
