"""The lock pins all that is installed; the audit's verdict on results in pip-audit's shape, made by hand."""

import importlib.metadata
import importlib.util
import json
import re
import sysconfig

import pytest
from fuzzing import ROOT

SPEC = importlib.util.spec_from_file_location("security_audit", ROOT / "security" / "audit.py")
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

LOCK = (ROOT / "run_scripts" / "cpu_lock.txt").read_text()
PINS = {"jinja2": "3.1.2", "sympy": "1.14.0"}
# as pip-audit 2.10 writes it
CLEAN = {"name": "sympy", "version": "1.14.0", "vulns": []}
FOUND = {
    "name": "jinja2", "version": "3.1.2",
    "vulns": [
        {"id": "PYSEC-0", "fix_versions": ["3.1.3"], "aliases": ["CVE-2024-22195", "GHSA-0"], "description": ""}
    ],
}  # fmt: skip
SKIPPED = {"name": "jinja2", "skip_reason": "Dependency not found on PyPI and could not be audited: jinja2 (3.1.2)"}
DECISION = {"id": "CVE-2024-22195", "package": "Jinja2", "decision": "not affected", "reason": "x"}


@pytest.mark.parametrize(
    ("dependencies", "decisions", "left_out", "status", "says"),
    [
        ([FOUND, CLEAN], [DECISION], [], 0, ""),
        ([FOUND, CLEAN], [], [], 1, "jinja2 3.1.2 has PYSEC-0 without a decision; fixed in: 3.1.3"),
        ([FOUND, CLEAN], [{**DECISION, "package": "sympy"}], [], 1, "without a decision"),
        ([{**FOUND, "vulns": []}, CLEAN], [DECISION], [], 1, "of no vulnerability any more: remove it"),
        ([SKIPPED, CLEAN], [], [], 1, "jinja2 was not audited"),
        ([CLEAN], [], [], 1, "jinja2 was not audited"),
        ([SKIPPED, CLEAN], [], ["jinja2"], 0, ""),
        ([{**FOUND, "vulns": []}, CLEAN], [], ["jinja2"], 1, "was audited, or is gone"),
        ([SKIPPED], [], ["jinja2", "sympy"], 3, "not audited"),
        ([], [], [], 3, "not audited"),
    ],
)
def test_verdicts(dependencies, decisions, left_out, status, says):
    found = audit.compare({"dependencies": dependencies}, PINS, decisions, left_out)
    assert found[0] == status and says in " ".join(found[1])


def test_no_result_is_no_all_clear(tmp_path, capsys):
    paths = [tmp_path / "found.json", tmp_path / "lock", tmp_path / "decisions.toml"]
    assert audit.main([str(path) for path in paths]) == 3 and "not audited" in capsys.readouterr().err
    paths[0].write_text(json.dumps({"dependencies": [FOUND, CLEAN]}))
    paths[1].write_text("# x\njinja2==3.1.2\nsympy==1.14.0\n")
    paths[2].write_text("")
    assert audit.main([str(path) for path in paths]) == 1


@pytest.mark.parametrize("text", ["torch>=2", "-e .", "a @ b", "--index-url x", "a==1 ; python_version < '3'"])
def test_a_lock_pins(text):
    with pytest.raises(audit.AuditError, match="pin it"):
        audit.locked(text)


@pytest.mark.parametrize("text", ["[[decision]]\nid='a'", "[[x]]\na=1", "[[not_audited]]\npackage='a'\nreason='b'"])
def test_a_decision_is_whole(text):
    with pytest.raises(audit.AuditError):
        audit.read_decisions(text)


def test_our_files_are_sound():
    assert len(audit.locked(LOCK)) > 200 and "://" not in LOCK
    audit.read_decisions((ROOT / "security" / "decisions.toml").read_text())


def test_what_is_installed_is_what_is_locked():
    """In the environment of setup.sh; another one has versions of its own."""
    pins = audit.locked(LOCK)
    if not (ROOT / ".venv" / ".repo_verl_stamp").is_file():
        pytest.skip("not the environment of run_scripts/setup.sh")
    places = [sysconfig.get_path("purelib")]  # not what Ray brings along and puts on the path once it is imported
    installed = importlib.metadata.distributions(path=places)
    found = {audit.canonical(d.name): d.version.split("+")[0] for d in installed}
    assert len(found) > 100
    known = {name for name in found if name not in ("repo-verl", "pip")}
    assert {name: found[name] for name in known if found[name] != pins.get(name)} == {}


def test_setup_installs_by_the_lock_alone():
    script = (ROOT / "run_scripts" / "setup.sh").read_text()
    assert "--constraint run_scripts/cpu_lock.txt" in script
    pinned = re.findall(r"(?:install|uv)[ =]*(\S+)==(\S+)", script)
    assert all(audit.locked(LOCK)[name] == version for name, version in pinned if name in ("torch", "uv"))
