"""The JSON file beside the data: accounts, sources, flags and versions."""

from __future__ import annotations

import argparse
import json
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import repo_verl
from data_prep.account import Account
from data_prep.matching import Benchmarks
from data_prep.reading import sha256

_FILE = re.compile(r"[\w-]{1,100}\.parquet")
_LEFT_OUT = ("output", "input", "quiet", "decontaminate")
_OF_A_RUN = ("flags", "decontaminate", "versions")


def make_content(
    arguments: argparse.Namespace,
    accounts: Mapping[str, Account],
    sources: Mapping[str, dict[str, Any]],
    benchmarks: Benchmarks | None,
    hashes: Mapping[str, str],
) -> dict[str, Any]:
    """What one run has to say.

    Args:
        arguments: the parsed command line.
        accounts: by file name.
        sources: by file name.
        benchmarks: what the rows were compared with, if anything.
        hashes: SHA-256 by file name.
    """
    first = next(iter(sources.values()))
    content = {
        "set": arguments.set,
        "files": {name: account.as_json() for name, account in accounts.items()},
        "source": first if all(source == first for source in sources.values()) else dict(sources),
        "flags": {key: value for key, value in vars(arguments).items() if key not in _LEFT_OUT},
        "decontaminate": benchmarks.files if benchmarks else None,
        "versions": _versions(arguments),
        "sha256": dict(hashes),
    }
    return json.loads(json.dumps(content))


def merged(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content with the entries of earlier runs whose files are still there as they were written.

    ``earlier`` then has the flags, benchmarks and versions of each such file.

    Args:
        content: of this run.
        path: the JSON file of earlier runs, beside their files; another file in its place is no account.
    """
    old = _earlier(path, content["set"])
    kept = [name for name in old.get("files", {}) if name not in content["files"] and _unchanged(old, name, path)]
    if not kept:
        return content
    files = {**{name: old["files"][name] for name in kept}, **content["files"]}
    runs = old.get("earlier", {})
    return {
        **content,
        "files": files,
        "source": {name: _of_file((old if name in kept else content)["source"], name) for name in files},
        "sha256": {**{name: old["sha256"][name] for name in kept}, **content["sha256"]},
        "earlier": {name: runs.get(name) or {key: old.get(key) for key in _OF_A_RUN} for name in kept},
    }


def _earlier(path: Path, name: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        old = json.loads(path.read_bytes())
        parts = [*(old[key] for key in ("files", "source", "sha256")), old.get("earlier", {})]
        is_account = old["set"] == name and all(isinstance(part, dict) for part in parts) and all(parts[:3])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return old if is_account else {}


def _unchanged(old: dict[str, Any], name: str, path: Path) -> bool:
    """Whether the account's file is still there; a name that is no parquet file of the folder is none of ours."""
    file = path.parent / name
    if _FILE.fullmatch(name) is None or not file.is_file() or file.is_symlink():
        return False
    return sha256(file) == old["sha256"].get(name)


def _of_file(source: dict[str, Any], name: str) -> dict[str, Any]:
    return source.get(name, source)


def _versions(arguments: argparse.Namespace) -> dict[str, str]:
    used = ["pyarrow", "datasets"]
    used += ["math-verify"] if arguments.filter_unverifiable else []
    used += ["transformers"] if arguments.tokenizer else []
    versions = {name: metadata.version(name) for name in used}
    return {"repo_verl": repo_verl.__version__, **versions, "python": platform.python_version()}
