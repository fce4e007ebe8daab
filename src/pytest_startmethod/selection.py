"""Which start methods there are, which are selected, and which of them one test runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

ORDER: Final = ("fork", "spawn", "forkserver")
"""Every start method, in the order in which legs run and tables list them."""

ALL: Final = "all"
DEFAULT: Final = "default"


def available() -> tuple[str, ...]:
    """Return the start methods of this platform, in `ORDER`."""
    # Imported here: a run without a leg never imports multiprocessing.
    import multiprocessing

    methods = multiprocessing.get_all_start_methods()
    return tuple(method for method in ORDER if method in methods)


def default() -> str:
    """Return the interpreter's own start method, whatever ``set_start_method`` was told.

    ``multiprocessing.get_all_start_methods`` is documented to list it first.
    From 3.14 it reads that from the default context: ask before a leg is active.
    """
    import multiprocessing

    return multiprocessing.get_all_start_methods()[0]


def parse(text: str) -> str:
    """Return a selection as ``"all"``, ``"default"`` or names joined by commas in `ORDER`.

    Names may repeat and stand in any order.

    Raises:
        ValueError: a word is none of the valid ones; the message names it and them.

    """
    words = [word.strip() for word in text.split(",")]
    if words in ([ALL], [DEFAULT]):
        return words[0]
    for word in words:
        if word not in ORDER:
            alone = word in (ALL, DEFAULT)
            problem = f"{word!r} stands alone" if alone else f"{word!r} is not a start method"
            raise ValueError(f"{problem} (valid: all, default, or a list of {', '.join(ORDER)})")
    return ",".join(method for method in ORDER if method in words)


def selected(selection: str) -> tuple[str, ...]:
    """Return the methods of a parsed `selection`, in `ORDER`.

    A method that was given by name is one of them even where the platform lacks it.
    """
    if selection == ALL:
        return available()
    if selection == DEFAULT:
        return (default(),)
    return tuple(selection.split(","))


def choose(named: Collection[str], selection: str) -> tuple[str, ...]:
    """Return the methods that a test runs, in `ORDER`; it may be none.

    `named` are the methods of the test's marker, empty where it names none.
    A name that the platform lacks is chosen too, so that its leg can say so; ``all`` does not leave it out.
    """
    chosen = selected(selection)
    if not named:
        return chosen
    return tuple(method for method in ORDER if method in named and (selection == ALL or method in chosen))


def unavailable_reason(method: str, methods: Collection[str]) -> str:
    """Return why a leg under `method` is skipped where only `methods` are available."""
    return f"start method {method} is not available on this platform (available: {', '.join(methods)})"


def nothing_left_reason(named: Collection[str], selection: str, source: str) -> str:
    """Return why a test has no leg at all: its marker and `source` have no method in common."""
    names = ", ".join(method for method in ORDER if method in named)
    return f"no start method left: the marker names {names}, and {source} selects {', '.join(selected(selection))}"


def unselected_reason(method: str, selection: str, source: str) -> str:
    """Return why a test's own parameter `method` is skipped."""
    return f"start method {method} is not selected: {source} selects {', '.join(selected(selection))}"
