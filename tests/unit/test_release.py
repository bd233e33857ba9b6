"""The files of a release agree: version, citation, claims about Python and verl, and what the public CI runs."""

import re
import shlex
import tomllib

import pytest
import yaml
from fuzzing import ROOT

import repo_verl
from repo_verl import versions
from repo_verl.versions import TESTED_VERL

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SUITE = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
PYTHONS = ["3.11", "3.12"]
DOCUMENTS = ["CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md"]


def read(name):
    return (ROOT / name).read_text()


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def numbers(version):
    return tuple(int(part) for part in version.split("."))


def test_the_version_is_said_once_and_the_citation_and_the_changelog_agree():
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", repo_verl.__version__)
    assert "version" not in PROJECT["project"] and PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "repo_verl/__init__.py"
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == repo_verl.__version__
    released = re.findall(r"^## \[(\d\S*)\] - (\S+)$", read("CHANGELOG.md"), re.M)
    assert released == sorted(released, key=lambda release: numbers(release[0]), reverse=True)
    if released:
        assert released[0] == (citation["version"], str(citation["date-released"]))
    major, minor, _ = numbers(repo_verl.__version__)
    assert f"| {major}.{minor}.x | yes |" in read("SECURITY.md")


def test_the_citation_names_the_paper():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0" and citation["license"] == PROJECT["project"]["license"]
    assert citation["title"] == PROJECT["project"]["name"] and citation["message"] and citation["authors"]
    paper = citation["preferred-citation"]
    names = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert names == ["Siheng Li", "Zhanhui Zhou", "Wai Lam", "Chao Yang", "Chaochao Lu"]
    assert paper["url"] in read("README.md") and paper["url"] == PROJECT["project"]["urls"]["Paper"]


def test_no_address_of_the_repository_is_made_up():
    names = [*DOCUMENTS, "CITATION.cff", "pyproject.toml", "README.md", "CHANGELOG.md"]
    names += [str(path.relative_to(ROOT)) for path in sorted((ROOT / ".github").rglob("*")) if path.is_file()]
    for name in names:
        assert not re.search(r"(github\.com|pypi\.org|readthedocs)\S*/repo[-_]verl", read(name)), name
    assert set(PROJECT["project"]["urls"]) == {"Paper"}


def test_claims_about_verl_agree():
    """Extras, lock, `repo-verl check` and README; test_verl_versions.sh runs the contract tests on each."""
    assert list(TESTED_VERL) == sorted(TESTED_VERL, key=numbers)
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [re.sub(r"^verl(\[vllm\])?", "", need) for need in extras["cpu"] + extras["gpu"] if "verl" in need]
    newest = TESTED_VERL[-1]
    assert wanted == [f"=={newest}"] * 2, "the extras install the newest; each that is claimed may be there before"
    assert f"\nverl=={newest}\n" in read("run_scripts/cpu_lock.txt")
    assert versions.PINNED_CPU["verl"] == versions.PINNED_GPU["verl"] == newest
    for name in ("README.md", "docs/index.md"):
        assert f"verl {TESTED_VERL[0]} to {newest}" in read(name).replace(
            "](https://github.com/volcengine/verl)", ""
        ), name
    assert f"Claimed is verl {TESTED_VERL[0]} to {newest}" in read("CONTRIBUTING.md")
    script = read("run_scripts/test_verl_versions.sh")
    assert "from repo_verl.versions import TESTED_VERL" in script and "-m contract" in script
    assert any("test_verl_versions.sh" in step.get("run", "") for step in SUITE["jobs"]["tests"]["steps"])


def test_claims_about_python_agree():
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.13"
    classifiers = PROJECT["project"]["classifiers"]
    claimed = [line.rpartition(" ")[2] for line in classifiers if re.search(r"Python :: 3\.\d+$", line)]
    assert claimed == PYTHONS == SUITE["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert "(3, 11) <= sys.version_info[:2] <= (3, 12)" in read("run_scripts/setup.sh")
    for name in DOCUMENTS[:2]:
        assert "Python 3.11 and 3.12" in read(name) or "Python 3.11 or 3.12" in read(name)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_scripts_that_are_here(path):
    workflow = yaml.safe_load(path.read_text())
    assert True in workflow, "YAML 1.1 reads the key on as true"
    assert workflow["permissions"] == {"contents": "read"}
    assert all(0 < job["timeout-minutes"] <= 180 for job in workflow["jobs"].values())
    runs = [step["run"] for step in steps(workflow) if "run" in step]
    assert runs
    for run in runs:
        shell, script, *arguments = shlex.split(run)
        assert shell == "bash" and script.startswith("run_scripts/") and (ROOT / script).is_file(), run
        assert all((ROOT / argument).exists() for argument in arguments if "/" in argument), run
        assert "\n" not in run and not set(";|&$`") & set(run), f"{run}: one script, no shell code"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflows_actions_are_pinned_and_keep_no_credentials(path):
    pins = {"actions/checkout": "v4", "actions/setup-python": "v5", "actions/cache": "v4"}
    used = [step for step in steps(yaml.safe_load(path.read_text())) if "uses" in step]
    assert used
    for step in used:
        action, _, version = step["uses"].partition("@")
        assert pins.get(action) == version, step
        assert action != "actions/checkout" or step["with"]["persist-credentials"] is False


def test_the_public_ci_runs_every_tier():
    """All that .ci/run does, on each Python that is claimed, end to end on the one that was seen to run."""
    runs = {name: " ".join(step.get("run", "") for step in job["steps"]) for name, job in SUITE["jobs"].items()}
    assert "run_scripts/lint.sh" in runs["checks"] and "run_scripts/lint.sh" in read("run_scripts/test.sh")
    assert "run_scripts/docs.sh" in runs["checks"]
    assert "tests/unit" in runs["tests"] and "test_verl_versions.sh" in runs["tests"] and "tests/e2e" in runs["e2e"]
    parts = [step["run"] for name in ("tests", "e2e") for step in SUITE["jobs"][name]["steps"] if "run" in step]
    assert [part for part in parts if "test" in part and "--all" not in part] == []
    assert {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))} <= {
        "unit", "contract", "e2e", "gpu",
    }  # fmt: skip


def test_tests_of_data_that_is_not_in_the_repository_are_marked():
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        if re.search(r'"shared(/data|" / "data")', text) and path.name != "test_release.py":
            assert "pytest.mark.shared_data" in text, path


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_are_whole(name):
    form = yaml.safe_load(read(f".github/ISSUE_TEMPLATE/{name}.yml"))
    assert form["name"] and form["description"] and form["body"]
    kinds = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    assert {field["type"] for field in form["body"]} <= kinds
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names) and all(field["attributes"]["label"] for field in fields)
    required = {field["id"] for field in fields if field.get("validations", {}).get("required")}
    assert required >= ({"what", "check", "version", "config"} if name == "bug" else {"need"})
    assert name != "bug" or "repo-verl check" in fields[1]["attributes"]["label"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_what_is_here(name):
    text = read(name)
    paths = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    pattern = r"(?<![\w./])(?:run_scripts|tests|repo_verl|data_prep|recipe|security|docs)/[\w./]*\w"
    paths += re.findall(pattern, text)
    paths += re.findall(r"`([A-Z]+\.(?:md|cff))`", text)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path
    for module, constant in re.findall(r"`([A-Z_]{4,})` (?:in|there) ?`?([\w/]+\.py)?", text):
        assert not constant or module in read(constant), (module, constant)
