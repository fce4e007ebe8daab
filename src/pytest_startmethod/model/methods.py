"""Which start methods there are, which are selected, and which of them one test runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

ORDER: Final = ("fork", "spawn", "forkserver")
"""Every start method of multiprocessing, in the order in which legs run and tables list them."""

ALL: Final = "all"
DEFAULT: Final = "default"

_SHIPPED: Final = ("", "multiprocess", "billiard")


def split(method: str) -> tuple[str, str]:
    """Return the backend of a method, empty for multiprocessing, and what it calls the method itself."""
    backend, _, name = method.rpartition(":")
    return backend, name


def base(method: str) -> str:
    """Return ``fork``, ``spawn`` or ``forkserver``, whatever the backend: ``multiprocess:spawn`` -> ``spawn``."""
    return method.rpartition(":")[2]


def rank(method: str) -> tuple[int, str, int]:
    """Return the key by which methods are sorted: multiprocessing's own first, then each backend's in `ORDER`."""
    backend, name = split(method)
    known = backend in _SHIPPED
    return (
        _SHIPPED.index(backend) if known else len(_SHIPPED),
        "" if known else backend,
        ORDER.index(name) if name in ORDER else len(ORDER),
    )


def in_order(methods: Iterable[str]) -> list[str]:
    """Return `methods`, each once, in the order in which legs run and tables list them."""
    return sorted(set(methods), key=rank)


def problem(word: str, backends: Callable[[], Collection[str]]) -> str | None:
    """Return why `word` is not the name of a start method, or None if it is; `backends` gives the names there are."""
    if word in ORDER:
        return None
    if ":" not in word:
        return f"{word!r} is not a start method"
    backend, name = split(word)
    names = backends()
    if backend not in names:
        return f"{word!r}: {backend!r} is not a backend (there are: {', '.join(names)})"
    return None if name in ORDER else f"{word!r}: {name!r} is not a start method"


def available() -> tuple[str, ...]:
    """Return the start methods of this platform, in `ORDER`."""
    # Imported here: a run without a leg never imports multiprocessing.
    import multiprocessing

    methods = multiprocessing.get_all_start_methods()
    return tuple(method for method in ORDER if method in methods)


def default() -> str:
    """Return the interpreter's own start method, whatever was given to ``set_start_method``.

    ``multiprocessing.get_all_start_methods`` is documented to list it first.
    From 3.14 it reads that from the default context: ask before a leg is active.
    """
    import multiprocessing

    return multiprocessing.get_all_start_methods()[0]


def parse(text: str, backends: Callable[[], Collection[str]] = tuple) -> str:
    """Return a selection as ``"all"``, ``"default"`` or names joined by commas, in order.

    Names may repeat and stand in any order. `backends` gives the names that may stand before a colon.

    Raises:
        ValueError: a word is none of the valid ones; the message names it and them.

    """
    words = [word.strip() for word in text.split(",")]
    if words in ([ALL], [DEFAULT]):
        return words[0]
    for word in words:
        wrong = f"{word!r} stands alone" if word in (ALL, DEFAULT) else problem(word, backends)
        if wrong is not None:
            raise ValueError(f"{wrong} (valid: all, default, or a list of {', '.join(ORDER)})")
    return ",".join(in_order(words))


def selected(selection: str) -> tuple[str, ...]:
    """Return the methods of a parsed `selection`, in order; ``all`` is multiprocessing's.

    A method that was given by name is one of them even where the platform lacks it.
    """
    if selection == ALL:
        return available()
    if selection == DEFAULT:
        return (default(),)
    return tuple(selection.split(","))


def choose(named: Collection[str], selection: str) -> tuple[str, ...]:
    """Return the methods that a test runs, in order; it may be none.

    `named` are the methods of the test's marker, empty where it names none.
    A name that the platform lacks is chosen too, so that its leg can say so; ``all`` does not leave it out.
    """
    chosen = selected(selection)
    if not named:
        return chosen
    return tuple(method for method in in_order(named) if selection == ALL or method in chosen)


def unavailable_reason(method: str, methods: Collection[str]) -> str:
    """Return why a leg under `method` is skipped where only `methods` are available."""
    return f"start method {method} is not available on this platform (available: {', '.join(methods)})"


def nothing_left_reason(named: Collection[str], selection: str, source: str) -> str:
    """Return why a test has no leg at all: its marker and `source` have no method in common."""
    names = ", ".join(in_order(named))
    return f"no start method left: the marker names {names}, and {source} selects {', '.join(selected(selection))}"


def unselected_reason(method: str, selection: str, source: str) -> str:
    """Return why a test's own parameter `method` is skipped."""
    return f"start method {method} is not selected: {source} selects {', '.join(selected(selection))}"
