"""Modules that only the parent has imported."""

from __future__ import annotations

import importlib
import sys

import pytest

from pytest_startmethod.causes import registering
from pytest_startmethod.model.observed import Observed

SOURCES = {
    "shop_base": "NAMES = {}\n",
    "shop_users": "import shop_base\n\ndef describe():\n    return shop_base.NAMES['ShopOrder']\n",
    "shop_orders": "import shop_base\n\nclass ShopOrder:\n    pass\n\nshop_base.NAMES['ShopOrder'] = ShopOrder\n",
}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    for name, text in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for name in SOURCES:
        importlib.import_module(name)
    yield Observed("spawn", "shop_users.describe", None, roots=["shop_users"])
    for name in SOURCES:
        del sys.modules[name]


def found(observed, said, tests=()):
    return {each.path: (each.code, each.level) for each in registering.modules(observed, said, tests)}


def test_module_whose_class_the_childs_exception_names(shop):
    """It is a cause, and it is said what the exception speaks of; what the child imports anyway is none."""
    assert found([shop], "ShopError: 'ShopOrder'") == {"shop_orders": ("SM301", "cause")}
    (finding,) = registering.modules([shop], "ShopError: 'ShopOrder'", ())
    assert finding.message == (
        "shop_orders is imported in the parent and not in a fresh child, where nothing registers what it does; the "
        "child's exception speaks of what it defines: ShopError: 'ShopOrder'"
    )
    assert finding.fix.startswith("import shop_orders where the child's code needs what it registers")


def test_module_that_no_exception_names(shop, tmp_path):
    """If the test imports it, it is a note, which is reported only if an experiment confirms it."""
    assert found([shop], "ShopClosed: no") == {}
    test = tmp_path / "test_shop.py"
    test.write_text("def test_x():\n    import shop_orders\n")
    assert found([shop], "ShopClosed: no", [str(test)]) == {"shop_orders": ("SM301", "note")}
    (finding,) = registering.modules([shop], "ShopClosed: no", [str(test)])
    assert (finding.file, finding.line) == (str(test), 2)


def test_module_that_the_childs_code_imports(shop):
    """A child that imports it when the code runs does not lack it."""
    shop.imports = {"shop_orders": None}
    assert found([shop], "ShopError: 'ShopOrder'") == {}
    assert found([], "ShopError: 'ShopOrder'") == {}
