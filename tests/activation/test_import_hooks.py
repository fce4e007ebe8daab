"""Callbacks after the import of a module."""

from __future__ import annotations

import importlib
import sys

import pytest

from pytest_startmethod.activation.exchanges import Exchanges
from pytest_startmethod.activation.import_hooks import ImportHooks


@pytest.fixture
def hooks():
    return ImportHooks()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return the name of a module that has not been imported."""
    (tmp_path / "awaited_module.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    before = list(sys.meta_path)
    yield "awaited_module"
    sys.modules.pop("awaited_module", None)
    assert sys.meta_path == before


def test_module_that_is_there_is_no_reason_to_wait(hooks):
    """The function is called at once, and there is nothing left to cancel."""
    called = []
    before = list(sys.meta_path)
    hooks.when_loaded("sys", lambda: called.append("now"))()
    assert called == ["now"]
    assert sys.meta_path == before


def test_function_is_called_when_the_module_is_whole(module, hooks):
    """The function sees the complete module, and is called again when that is imported anew."""
    seen = []
    call_off = hooks.when_loaded(module, lambda: seen.append(sys.modules[module].value))
    assert seen == []
    importlib.import_module(module)
    del sys.modules[module]  # as the end of mock.patch.dict(sys.modules) does
    importlib.import_module(module)
    call_off()
    assert seen == [1, 1]


def test_module_looks_as_ever(module, hooks):
    """Its loader and spec are those of Python's own finder."""
    call_off = hooks.when_loaded(module, lambda: None)
    loaded = importlib.import_module(module)
    call_off()
    assert type(loaded.__loader__).__module__ == "_frozen_importlib_external"
    assert loaded.__spec__.loader is loaded.__loader__


def test_what_is_called_off_is_not_called(module, hooks):
    """Other callbacks for the same module are still called."""
    called = []
    first = hooks.when_loaded(module, lambda: called.append("first"))
    second = hooks.when_loaded(module, lambda: called.append("second"))
    first()
    importlib.import_module(module)
    second()
    assert called == ["second"]


def test_failure_does_not_reach_the_import(module, hooks):
    """The user's import ends as it would without us."""
    call_off = hooks.when_loaded(module, lambda: 1 / 0)
    assert importlib.import_module(module).value == 1
    call_off()


def test_module_that_fails_to_load_fails_as_ever(module, tmp_path, hooks):
    """Its own exception propagates, and no callback is called."""
    (tmp_path / "awaited_module.py").write_text("raise LookupError('mine')\n")
    called = []
    call_off = hooks.when_loaded(module, lambda: called.append("loaded"))
    with pytest.raises(LookupError, match="mine"):
        importlib.import_module(module)
    call_off()
    assert called == []


def test_patches_wait_for_a_module_until_they_are_undone(module):
    """What is imported while the patches are active is patched, and restored with the others."""
    patches = Exchanges().span("test")

    def exchange():
        patches.put(sys.modules[module], "value", lambda old: old + 1)

    patches.when_loaded(module, exchange)
    loaded = importlib.import_module(module)
    assert loaded.value == 2
    patches.undo()
    assert loaded.value == 1


def test_patches_that_are_undone_wait_no_longer(module):
    """What is imported afterwards is not patched."""
    patches = Exchanges().span("test")
    patches.when_loaded(module, lambda: patches.put(sys.modules[module], "value", lambda old: old + 1))
    patches.undo()
    assert importlib.import_module(module).value == 1
