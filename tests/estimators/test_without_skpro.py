"""What the adapter says where skpro is missing."""

import importlib
import sys

import pytest


def test_the_error_says_what_to_install(monkeypatch):
    for name in list(sys.modules):
        if name.startswith(("skpro.", "hilbound.estimators.skpro")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skpro", None)
    with pytest.raises(ModuleNotFoundError, match=r"skpro: pip install 'hilbound\[skpro\]'"):
        importlib.import_module("hilbound.estimators.skpro")


def test_another_missing_package_is_named_itself(monkeypatch):
    for name in list(sys.modules):
        if name.startswith("hilbound.estimators.skpro"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hilbound.estimators.skpro.distribution", None)
    with pytest.raises(ModuleNotFoundError, match=r"distribution"):
        importlib.import_module("hilbound.estimators.skpro")
