"""Whether what is installed has every name of :mod:`repo_verl.trainer.seams`; the version number refuses nothing."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import logging
import os
import re
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any

from repo_verl import versions
from repo_verl.config import RepoConfigError
from repo_verl.trainer.seams import Seam, list_seams

logger = logging.getLogger(__name__)

_OF_INSTANCES = object()  # stands for an attribute that instances have


@functools.cache
def require_seams() -> None:
    """Refuse to run RePO where a name that it needs is missing or has other parameters, naming the first one."""
    missing = [(seam, fault) for seam, fault in look_at_seams() if fault is not None]
    if missing:
        seam, fault = missing[0]
        more = f" (and {len(missing) - 1} more, which `repo-verl check` lists)" if len(missing) > 1 else ""
        distribution = {"transfer_queue": "transferqueue"}.get(root := seam.module.split(".")[0], root)
        raise RepoConfigError(
            f"algorithm.adv_estimator=repo can't run with {versions.describe()}, since {fault}{more}: "
            f"pip install {distribution}=={versions.TESTED[distribution][-1]}."
        )


def warn_untested() -> None:
    """One line where a version that is installed was not tested; said by the trainer, of which a run has one."""
    found = versions.untested()
    if found:
        logger.warning(
            "RePO: untested: %s; every name that RePO uses is there with the parameters it uses, so the run starts: "
            "compare its first steps with a run on tested versions",
            "; ".join(found),
        )


def look_at_seams() -> Iterator[tuple[Seam, str | None]]:
    """Every name of the table, and what is wrong with it; None where nothing is."""
    cpu = os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"
    with unchanged_environment():
        for seam in list_seams(cpu):
            yield seam, find_fault(seam)


@contextlib.contextmanager
def unchanged_environment() -> Iterator[None]:
    """Take back what imports in the block put into the environment, which the run's workers would inherit."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def find_fault(seam: Seam) -> str | None:
    """What is wrong with one name of the table, used with the parameters that it states; None where nothing is."""
    try:
        owner: Any = importlib.import_module(seam.module)
    except Exception as error:
        return f"{seam.module} can't be imported ({type(error).__name__}: {error})"
    found, bound = owner, True
    for part in seam.name.split("."):
        owner, found = _plain(found), _member(found, part, seam.parameters is None)
        if found is None:
            return f"{seam.module}.{seam.name} is missing"
        bound = not inspect.isclass(owner) or not isinstance(inspect.getattr_static(owner, part, None), FunctionType)
    if seam.parameters is None:
        return None
    if not callable(found):
        return f"{seam.module}.{seam.name} can't be called"
    signature = inspect.signature(_plain(found))
    declared = [parameter for name, parameter in signature.parameters.items() if name != "_ray_trace_ctx"]
    signature = signature.replace(parameters=declared if bound else declared[1:])
    fault = _differs(seam.parameters, signature) if seam.overridden else _refuses(seam.parameters, signature)
    return f"{seam.module}.{seam.name}({', '.join(signature.parameters)}) {fault}" if fault else None


def _plain(found: Any) -> Any:  # the class behind an actor class of Ray's; anything else as it is
    return getattr(getattr(found, "__ray_metadata__", None), "modified_class", found)


def _member(owner: Any, name: str, of_instances: bool) -> Any:
    """A module's or class's member, a stand-in for None or for what only instances have; None where there is none."""
    owner = _plain(owner)
    if hasattr(owner, name):
        return _OF_INSTANCES if getattr(owner, name) is None else getattr(owner, name)
    if of_instances and inspect.isclass(owner):
        for base in inspect.getmro(owner):
            if name in getattr(base, "__annotations__", {}) or re.search(rf"\bself\.{name}\b", _source(base)):
                return _OF_INSTANCES
    return None


@functools.cache
def _source(owner: type) -> str:
    """A class's source, which stays what it is where somebody has put a function in place of a method."""
    try:
        return inspect.getsource(owner)
    except (OSError, TypeError):  # built in, or installed without its source
        return ""


def _differs(parameters: Sequence[str], signature: inspect.Signature) -> str | None:
    """How an overridden method's parameters differ from those of RePO's method."""
    wanted = [name for name in parameters if name != "*"]
    names = list(signature.parameters)[: len(wanted) if "*" in parameters else None]
    return None if names == wanted else f"has other parameters than RePO's ({', '.join(wanted)})"


def _refuses(parameters: Sequence[str], signature: inspect.Signature) -> str | None:
    """Why a call as RePO makes it would be refused."""
    wanted = [name for name in parameters if name != "*"]
    first = wanted.index("/") if "/" in wanted else 0
    positional, named = wanted[:first], [name for name in wanted[first:] if name != "/"]
    bind = signature.bind_partial if "*" in parameters else signature.bind
    try:
        bind(*positional, **dict.fromkeys(named))
    except TypeError as error:
        return f"refuses RePO's call: {error}"
    for number, (name, place) in enumerate(zip(positional, signature.parameters, strict=False), 1):
        if name not in ("_", place):
            return f"does not take {name} as argument {number}"
    return None
