"""How one name of the table is compared with a module, on stand-ins; and versions."""

import importlib.metadata
import sys
from types import ModuleType

import pytest

from repo_verl import versions
from repo_verl.trainer.seams import Seam, _seam, find_fault


class Owner:
    declared: int
    nothing = None

    def __init__(self, a, b=0):
        self.assigned = a

    def method(self, a, b=0, *, c=0):
        def inner():
            self.assigned_in_a_function_inside = 1

        return inner

    def open(self, a, **kwargs):
        pass

    @classmethod
    def made(cls, a):
        pass

    @staticmethod
    def still(a):
        pass


@pytest.fixture(autouse=True)
def module(monkeypatch):
    module = ModuleType("stand_in")
    module.Owner, module.function, module.nothing = Owner, lambda a, b, *rest: None, None
    monkeypatch.setitem(sys.modules, "stand_in", module)


GOOD = (
    "Owner", "Owner.declared", "Owner.nothing", "Owner.assigned", "Owner.assigned_in_a_function_inside", "nothing",
    "Owner(_, /, b)", "Owner(a)", "Owner.method(a)", "Owner.method(a, b, /)", "Owner.method(_, /, c)",
    "Owner.open(a, anything)", "Owner.made(a)", "Owner.still(a)", "function(a, b)", "function(_, _, _, _, /)",
)  # fmt: skip
BAD = {
    "missing": "stand_in.missing is missing",
    "Owner.missing": "stand_in.Owner.missing is missing",
    "Owner.method.missing": "stand_in.Owner.method.missing is missing",
    "nothing()": "stand_in.nothing can't be called",
    "Owner()": "stand_in.Owner(a, b) refuses RePO's call: missing a required argument: 'a'",
    "Owner(a, c)": "stand_in.Owner(a, b) refuses RePO's call: got an unexpected keyword argument 'c'",
    "Owner.method(b)": "stand_in.Owner.method(a, b, c) refuses RePO's call: missing a required argument: 'a'",
    "Owner.method(b, a, /)": "stand_in.Owner.method(a, b, c) does not take b as argument 1",
    "Owner.method(_, _, _, /)": "stand_in.Owner.method(a, b, c) refuses RePO's call: too many positional arguments",
    "function(a)": "stand_in.function(a, b, rest) refuses RePO's call: missing a required argument: 'b'",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_name_that_serves(text):
    assert find_fault(_seam("stand_in", text)) is None


@pytest.mark.parametrize("text", BAD)
def test_a_name_that_does_not_serve_is_told(text):
    assert find_fault(_seam("stand_in", text)) == BAD[text]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("method(a, b, c)", True),
        ("method(a, *)", True),
        ("method(a)", False),
        ("method(b, *)", False),
        ("method(b, a, c)", False),
        ("method(a, b, c, d)", False),
        ("gone(a)", False),
    ],
)
def test_an_overridden_method_has_exactly_the_parameters_of_ours(text, good):
    assert (find_fault(_seam("stand_in", f"Owner.{text}", overridden=True)) is None) is good


def test_a_module_that_is_not_there_is_told():
    fault = find_fault(Seam("stand_in_that_is_missing", "x", None))
    assert fault.startswith("stand_in_that_is_missing can't be imported (ModuleNotFoundError: ")


@pytest.mark.parametrize(
    ("stated", "public"),
    [
        ("0.9.1", "0.9.1"),
        ("0.9.1+cu130", "0.9.1"),
        ("0.9.1.post1", "0.9.1"),
        ("0.9.1.post1+cu130.torch2", "0.9.1"),
        ("0.9.1rc1", "0.9.1rc1"),
        ("0.10.0.dev0+g1234", "0.10.0.dev0"),
        ("2.60.0", "2.60.0"),
        ("no version", "no version"),
    ],
)
def test_versions_are_compared_by_their_public_part(stated, public, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: stated)
    assert versions.installed("verl") == public


def test_verl_transfer_queue_and_ray_are_looked_at(monkeypatch):
    found = {"verl": "0.9.1+cu130", "transferqueue": "0.1.11.post2", "ray": "2.60.0"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: found[name])
    assert versions.untested() == []
    found.update(verl="0.9.2", transferqueue="0.2.0", ray="2.61.0")
    assert versions.untested() == [
        "verl 0.9.2 (tested: 0.9.0, 0.9.1)",
        "transferqueue 0.2.0 (tested: 0.1.11)",
        "ray 2.61.0 (tested: 2.60.0)",
    ]
    assert versions.describe() == "verl 0.9.2, transferqueue 0.2.0, ray 2.61.0"
