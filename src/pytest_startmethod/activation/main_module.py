"""Keep children from running the parent's main module, which under pytest is pytest itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..model.place import Place
from ..source.index import find_calls


def main_is_pytest() -> bool:
    """Return whether ``__main__`` is pytest's own entry point: the ``pytest`` script or ``python -m pytest``."""
    main = sys.modules.get("__main__")
    spec_name = getattr(getattr(main, "__spec__", None), "name", None) or ""
    file = os.path.basename(getattr(main, "__file__", None) or "")
    return spec_name.partition(".")[0] == "pytest" or file in ("pytest", "py.test", "pytest.exe", "pytest-script.py")


def unguarded_runner() -> Place | None:
    """Return the line where the main module, a user's script, runs pytest outside a main guard, or None.

    Looks for calls of a function named `main` or `console_main`, such as ``sys.exit(pytest.main(sys.argv[1:]))``.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if main_is_pytest() or not isinstance(file, str):
        return None
    for name in ("main", "console_main"):
        for place in find_calls([os.path.abspath(file)], name, outermost=True):
            return place
    return None


def without_main(original: Callable[[str], dict[str, object]]) -> Callable[[str], dict[str, object]]:
    """Wrap ``spawn.get_preparation_data`` so that children do not run the parent's main module.

    Under pytest that is pytest's entry point or a script that calls ``pytest.main()``. Running it would import all of
    pytest into every child or, without a main guard, start the whole session again.
    """

    def get_preparation_data(name: str) -> dict[str, object]:
        data = original(name)
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
        return data

    return get_preparation_data
