"""What MkDocs generates: the table of settings from the dataclass and its docstring, and sections of the README."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe

from repo_verl import config

README = Path(__file__).resolve().parents[1] / "README.md"
SETTINGS = "<!-- settings -->"
SECTION = re.compile(r"<!-- README( body)?: (.+?) -->")
CODE = re.compile(r"`[^`]+`")
ITEM = re.compile(r"(?:[-*]|\d+\.) ")
ROLE = re.compile(r":\w+:`~?([^`]+)`")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs' event: put the table and the sections where their marks are."""
    folder = posixpath.dirname(page.file.src_uri)
    markdown = SECTION.sub(lambda mark: readme_section(mark[2], folder, heading=not mark[1]), markdown)
    return as_mkdocs_reads_it(markdown.replace(SETTINGS, settings_table()))


def as_mkdocs_reads_it(text: str) -> str:
    """What GitHub and MkDocs read otherwise: a list that follows a line of text, and a bar in code in a table."""
    lines: list[str] = []
    fenced = False
    for line in text.split("\n"):
        before = lines[-1] if lines else ""
        if ITEM.match(line) and not fenced and before.strip() and not ITEM.match(before) and before[0] not in " |#":
            lines.append("")
        if line.startswith("|"):
            line = CODE.sub(lambda code: code[0].replace("\\|", "|"), line)
        fenced ^= line.startswith("```")
        lines.append(line)
    return "\n".join(lines)


def readme_section(title: str, folder: str, heading: bool = True) -> str:
    """A section of the README, links made relative to a folder of docs/.

    Raises:
        ValueError: if the README has no such section; the build stops.
    """
    parts = re.split(r"^## (.+)$", README.read_text(), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if title not in sections:
        raise ValueError(f"README.md has no section {title!r}, which a page of docs/ shows: rename the page's mark.")
    up = posixpath.relpath(".", folder) if folder else "."
    body = re.sub(r"\]\(docs/", f"]({up}/", sections[title])
    return f"## {title}\n{body}" if heading else body


def settings_table() -> str:
    """A row a setting: key, type, default as YAML has it, meaning."""
    meanings = documented(config.RepoConfig)
    lines = [f"| key under `{config.PREFIX[:-1]}` | type | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(config.RepoConfig):
        kind = str(field.type).replace(" | None", " or null")
        lines.append(f"| `{field.name}` | {kind} | `{as_yaml(field.default)}` | {meanings[field.name]} |")
    return "\n".join(lines)


def documented(cls: type) -> dict[str, str]:
    """Attribute -> what the docstring says of it, as one line of Markdown."""
    sections = griffe.Docstring(cls.__doc__ or "").parse("google", warnings=False)
    found = next(section.value for section in sections if section.kind is griffe.DocstringSectionKind.attributes)
    return {each.name: markdown_of(each.description) for each in found}


def markdown_of(text: str) -> str:
    """Docstring text with its roles and double back quotes as Markdown; names of tuples become what they hold."""
    text = ROLE.sub(lambda role: _named(role[1]), " ".join(text.split()))
    return text.replace("``", "`").replace("|", "\\|")


def _named(name: str) -> str:
    values = getattr(config, name, None)
    return ", ".join(f"`{value}`" for value in values) if isinstance(values, tuple) else f"`{name}`"


def as_yaml(value: object) -> str:
    """A default as YAML and Hydra have it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).replace("e-0", "e-") if isinstance(value, float) else str(value)
