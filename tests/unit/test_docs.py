"""The site: built in strict mode, its links, its tables against the code, the messages that it quotes."""

import ast
import dataclasses
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from repo_verl.config import RepoConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text()
FOREIGN = "## Messages of verl, Hydra and Ray"


def load(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_links, hooks = load("check_links"), load("hooks")


def build(root, site):
    """``mkdocs build`` as run_scripts/docs.sh has it."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        capture_output=True, text=True, check=False, cwd=root, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_has_no_dead_link_and_loads_nothing_from_elsewhere(site):
    assert list(check_links.site_faults(site)) == []
    assert (site / "index.html").is_file() and not list(site.rglob("*.py"))


def test_the_repositorys_own_markdown_has_no_dead_link():
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "recipe" / "repo" / "README.md"):
        assert list(check_links.markdown_faults(path)) == []


def test_every_page_is_in_the_navigation(site):
    """MkDocs in strict mode refuses a page that is not; this sees that it was asked to."""
    menu = (site / "index.html").read_text()
    for path in PAGES:
        page = path.relative_to(ROOT / "docs").with_suffix(".html")
        assert f'href="{page}"' in menu, page


@pytest.mark.parametrize("line", ["[x](gone.md)", "[x](concept.md#gone)", "[x](#gone)", '--8<-- "gone.svg"'])
def test_a_dead_link_in_a_page_stops_the_build(line, tmp_path):
    root = tmp_path / "root"
    for name in ("docs", "repo_verl", "data_prep"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "README.md"):
        shutil.copy(ROOT / name, root / name)
    page = root / "docs" / "index.md"
    page.write_text(f"{page.read_text()}\n\n{line}\n")
    done = build(root, tmp_path / "site")
    assert done.returncode != 0 and "gone" in (done.stderr + done.stdout).lower()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="gone.html">x</a>', "no file"),
        ('<a href="#gone">x</a>', "no anchor"),
        ('<a href="other.html#gone">x</a>', "no anchor"),
        ('<a href="http://a.org/x">x</a>', "no well-formed"),
        ('<a href="https://a/x y">x</a>', "no well-formed"),
        ('<script src="https://unpkg.com/x.js"></script>', "from elsewhere"),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "from elsewhere"),
        ('<img src="gone.png">', "no file"),
        ('<a href="other.html#there">x</a><a href="https://a.org/x#y">x</a><p id="here"><a href="#here">x</a>', None),
    ],
)
def test_what_is_a_fault_of_a_page(body, fault, tmp_path):
    (tmp_path / "index.html").write_text(body)
    (tmp_path / "other.html").write_text('<p id="there">')
    found = list(check_links.site_faults(tmp_path))
    assert found == [] if fault is None else len(found) == 1 and fault in found[0]


def test_no_site_is_no_all_clear(tmp_path):
    assert len(list(check_links.site_faults(tmp_path))) == 1


def test_headings_have_githubs_anchors():
    assert check_links.headings("# A b\n\n```\n# no\n```\n## `c` d's, e!\n") == {"a-b", "c-ds-e"}


def test_lists_and_bars_are_written_as_mkdocs_reads_them(site):
    text = "a:\n- b\n  c\n- d\n\ne\n1. f\n```\ng\n- h\n```\n# i\n- j"
    assert hooks.as_mkdocs_reads_it(text) == "a:\n\n- b\n  c\n- d\n\ne\n\n1. f\n```\ng\n- h\n```\n# i\n- j"
    assert hooks.as_mkdocs_reads_it("| `a\\|b` | \\| |") == "| `a|b` | \\| |"
    page = (site / "reference" / "data.html").read_text()
    assert "<code>--template none|boxed|think</code>" in page


# --- tables against the code -----------------------------------------------------------------------------------------


def table(path, title):
    """Cells of the first table of a section of a page, a list a row."""
    parts = re.split(r"^#+ (.+)$", (ROOT / path).read_text(), flags=re.MULTILINE)
    body = dict(zip(parts[1::2], parts[2::2], strict=True))[title]
    lines = itertools.dropwhile(lambda line: not line.startswith("|"), body.splitlines())
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows][2:]


def number(text):
    """100 and 100.0 are one default."""
    try:
        return float(text)
    except ValueError:
        return text


def as_yaml(value):
    """A default as YAML and Hydra have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return number(value)


DEFAULTS = {field.name: as_yaml(field.default) for field in dataclasses.fields(RepoConfig)}


def written(path, title="Settings"):
    return {row[0].strip("| `"): number(row[1].strip("` ")) for row in table(path, title)}


def test_the_table_of_settings_has_them_all_with_their_defaults():
    assert list(written("docs/reference/settings.md")) == list(DEFAULTS)
    assert written("docs/reference/settings.md") == DEFAULTS


def test_the_readmes_eight_settings_have_their_defaults():
    assert len(written("README.md")) == 8 and written("README.md").items() <= DEFAULTS.items()


def expanded(pattern):
    """``a_{b,c}`` -> a_b, a_c."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return {"".join(choice) for choice in itertools.product(*parts)}


def test_metrics_that_pages_name_are_logged():
    logged = set().union(
        *(
            expanded(name)
            for row in table("docs/reference/metrics.md", "Logged metrics")
            for name in re.findall(r"`([^`]+)`", row[0])
        )
    )
    assert "score_replayed_std" in logged and len(logged) > 35
    for path in [*PAGES, ROOT / "README.md"]:
        for name in re.findall(r"`repo/(\w+)`", path.read_text()):
            assert name in logged, (path.name, name)


def test_paths_that_pages_name_exist():
    """Folders and files of the repository in code spans; a name with a placeholder in it is none."""
    folders = "run_scripts|repo_verl|data_prep|recipe|benchmarks|security|tests|docs"
    names = [
        (path.name, name)
        for path in PAGES
        for name in re.findall(rf"`((?:{folders})/[\w./]+)`", path.read_text())
        if not re.search("[A-Z]{3}", name)
    ]
    assert [each for each in names if not (ROOT / each[1]).exists()] == [] and len(names) > 5


def test_the_picture_is_sound_and_stands_alone():
    text = (ROOT / "docs" / "concept.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg") and "prefers-color-scheme: dark" in text
    assert not re.search(
        r"(href|src|url\()=?[\"']?(https?:)?//", text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    )


# --- messages --------------------------------------------------------------------------------------------------------


def messages(text):
    """Headings that quote a message."""
    return re.findall(r"^### `(.+)`", text, re.MULTILINE)


def templates(path):
    """The texts of a module, with … where an f-string has a value; adjacent parts are joined."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def sources():
    """What the package and the scripts can say; the configuration's prefix is a value in f-strings."""
    texts = [text for path in sorted((ROOT / "repo_verl").rglob("*.py")) for text in templates(path)]
    return texts + [path.read_text() for path in sorted((ROOT / "run_scripts").glob("*.sh"))]


def occurs(message, texts):
    pattern = re.compile(".*?".join(re.escape(part) for part in message.split("…")), re.DOTALL)
    return any(pattern.search(text) for text in texts)


@pytest.mark.parametrize("message", messages(TROUBLE.split(FOREIGN)[0]))
def test_a_message_that_is_quoted_is_in_the_source(message, sources):
    assert occurs(message, sources)


def test_a_message_that_is_not_in_the_source_is_found_out(sources):
    assert len(messages(TROUBLE.split(FOREIGN)[0])) > 25
    assert occurs("… exceeds …, so no prompt would ever replay", sources)
    assert not occurs("… exceeds …, so no prompt would never replay", sources)
