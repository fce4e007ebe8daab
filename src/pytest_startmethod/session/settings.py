"""The user's configuration: options and ini keys as `Settings`, a test's marker as `Marker`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from ..model import methods as selection
from .options import DISCOVER, PRECHECK, USER_CODE, VACUOUS, VERIFY, flag

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import pytest

    from ..model.backends import Backend


_T = TypeVar("_T")

MOST_SECONDS = 1e9
"""The longest time limit, about 32 years: operating system timers overflow somewhere above."""


class SettingsError(ValueError):
    """An option, ini key or marker with an invalid value; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of one run."""

    selection: str = selection.ALL
    """``"all"``, ``"default"`` or comma-separated names, see `selection.parse`."""
    explicit: bool = False
    """Whether the selection was given on the command line."""
    precheck: str = "report"
    """One of `PRECHECK`."""
    vacuous: str = "report"
    """One of `VACUOUS`; a marker may override it."""
    timeout: float | None = None
    """Seconds, 0 for no limit, or None for ``auto``; a marker may override it."""
    reports: tuple[str, ...] = ()
    """Absolute paths of the report files."""
    discover: bool = False
    """Whether unmarked tests are watched."""
    verify: bool = True
    """Whether experiments confirm the findings of failed legs."""
    verify_seconds: float | None = None
    """Time limit for all experiments together, or None for the session's own duration (at least a minute)."""
    user_code: tuple[str, ...] = ()
    """Installed packages to treat as the user's own code."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Selected methods, in order. Imports multiprocessing."""
        return selection.selected(self.selection)

    @property
    def source(self) -> str:
        """Where the selection comes from, as messages name it."""
        return "--start-methods" if self.explicit else "the ini key start_methods"


def from_config(config: pytest.Config) -> Settings:
    """Return the settings of a run. Command line beats ini file beats default.

    Raises:
        SettingsError: a value is invalid; the message names it, the valid values, and where it was set.

    """

    def word(key: str, valid: tuple[str, ...]) -> str:
        text, source = _given(config, key)
        if not text and source.startswith("ini"):
            return valid[0]
        if text not in valid:
            raise SettingsError(f"{source}: {text!r} is not valid (valid: {', '.join(valid)})")
        return text

    text, source = _given(config, "start_methods")
    explicit = source.startswith("--")
    try:
        chosen = selection.ALL if not text and not explicit else selection.parse(text, lambda: _backends(config))
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from None
    _refuse_missing(config, chosen, source)
    return Settings(
        chosen,
        explicit,
        word("start_methods_precheck", PRECHECK),
        word("start_methods_vacuous", VACUOUS),
        _limit(*_given(config, "start_methods_timeout")),
        _reports(config),
        _discover(config),
        *_verify(config),
        _packages(_ini(config, USER_CODE)),
    )


def _given(config: pytest.Config, key: str) -> tuple[str, str]:
    """Return an option's text, empty if not given, and where it was set, as messages name it."""
    value, source = _raw(config, key)
    if not isinstance(value, str):  # a list in [tool.pytest.ini_options], where pytest does not check types
        raise SettingsError(f"ini key {key}: expects a string, got {type(value).__name__}: {value!r}")
    return value if source.startswith("--") else value.strip(), source


def _raw(config: pytest.Config, key: str) -> tuple[Any, str]:
    value = config.getoption(key)
    return (_ini(config, key), f"ini key {key}") if value is None else (value, flag(key))


def _ini(config: pytest.Config, key: str) -> Any:
    try:
        return config.getini(key)
    except Exception as error:  # ValueError, TypeError or, from 9.2 on, UsageError
        raise SettingsError(f"ini key {key}: {error}") from None


def _backends(config: pytest.Config) -> Mapping[str, Backend]:
    from . import backends

    try:
        return backends.known(config)
    except backends.BackendError as error:
        raise SettingsError(str(error)) from None


def _refuse_missing(config: pytest.Config, chosen: str, source: str) -> None:
    """Reject a method whose package is missing: ``all`` never includes one, so it was selected on purpose."""
    for method in chosen.split(",") if ":" in chosen else ():
        name, _ = selection.split(method)
        backend = _backends(config)[name] if name else None
        if backend is not None and not backend.installed:
            from . import backends

            raise SettingsError(f"{source}: {backends.missing_reason(method, backend)}")


def _reports(config: pytest.Config) -> tuple[str, ...]:
    texts, source = _raw(config, "start_methods_report")
    if not texts:
        return ()
    from . import report_files

    # Like pytest's own files: command-line paths are relative to the working directory, ini paths to the root.
    base = config.invocation_params.dir if source.startswith("--") else config.rootpath
    try:
        return tuple(dict.fromkeys(report_files.checked(text, base) for text in texts))
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from None


def _discover(config: pytest.Config) -> bool:
    try:
        return bool(_raw(config, DISCOVER)[0])
    except SettingsError as error:
        raise SettingsError(f"{error} (valid: true, false)") from None


def _verify(config: pytest.Config) -> tuple[bool, float | None]:
    text, source = _raw(config, VERIFY)
    word = str(text).strip().lower() if isinstance(text, (str, bool, int, float)) or text is None else ""
    if word in ("none", "true", "1", "yes", "on"):
        return True, None
    if word in ("false", "0", "no", "off"):
        return False, None
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise SettingsError(f"{source}: {text!r} is not valid (valid: true, false, or a number of seconds)")
    return seconds > 0, seconds


def _packages(names: list[str]) -> tuple[str, ...]:
    for name in names:
        if not name.isidentifier():
            raise SettingsError(f"ini key {USER_CODE}: {name!r} is not the name of a top-level package")
    return tuple(names)


def _limit(text: str, source: str) -> float | None:
    if text == "auto" or (not text and source.startswith("ini")):
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise SettingsError(f"{source}: {text!r} is not valid (valid: auto, a number of seconds, or 0 for no limit)")
    return seconds


@dataclass(frozen=True, slots=True)
class Named:
    """One method named by a marker, with the extras of ``pytest.param``."""

    method: str
    marks: tuple[Any, ...] = ()
    id: object = None
    """A string, ``pytest.HIDDEN_PARAM``, or None for the method's name."""

    @property
    def node_id(self) -> Any:
        """The method's part of a node id."""
        return self.method if self.id is None else self.id


@dataclass(frozen=True, slots=True)
class Marker:
    """A test's ``startmethods(*methods, vacuous=None, timeout=None, xfail=(), reason="", strict=None)``."""

    methods: tuple[Named, ...] = ()
    """Empty: every selected method."""
    vacuous: str | None = None
    """One of `VACUOUS`, or None for the run's setting."""
    timeout: float | None = None
    """Seconds, 0 for no limit, or None for the run's setting."""
    xfail: tuple[str, ...] = ()
    """The methods under which the test is expected to fail."""
    xfail_mark: object = None
    """The ``pytest.mark.xfail`` of their legs."""

    def named(self, method: str) -> Named:
        """Return the marker's entry for `method`."""
        found = next((named for named in self.methods if named.method == method), Named(method))
        return replace(found, marks=(*found.marks, self.xfail_mark)) if method in self.xfail else found


def parse_marker(
    args: tuple[object, ...], kwargs: Mapping[str, object], backends: Callable[[], Collection[str]] = tuple
) -> Marker:
    """Parse a marker's arguments; `backends` returns the names allowed before a colon.

    Raises:
        SettingsError: an argument is invalid; the message names it and the valid values, but not the test.

    """
    for keyword in kwargs:
        if keyword not in _KEYWORDS:
            raise SettingsError(f"unknown keyword {keyword!r} (valid: {', '.join(_KEYWORDS)})")
    methods: dict[str, Named] = {}
    for arg in args:
        named = _named(arg, backends)
        if named.method in methods:
            raise SettingsError(f"{named.method!r} is named twice")
        if any(named.node_id == other.node_id for other in methods.values()):
            raise SettingsError(f"two start methods have the id {named.node_id!r}")
        methods[named.method] = named
    xfail, mark = _xfail(kwargs, tuple(methods), backends)
    return Marker(
        tuple(methods.values()), _vacuous(kwargs.get("vacuous")), _timeout(kwargs.get("timeout")), xfail, mark
    )


def _xfail(
    kwargs: Mapping[str, object], named: tuple[str, ...], backends: Callable[[], Collection[str]]
) -> tuple[tuple[str, ...], Any]:
    """Return the methods that a marker expects to fail, and the mark for their legs."""
    given = kwargs.get("xfail", ())
    methods = (given,) if isinstance(given, str) else given
    if not isinstance(methods, (tuple, list)):
        raise SettingsError(f"xfail: expects names of start methods, not an object of type {type(given).__name__}")
    for method in methods:
        _named(method, backends)
        if named and method not in named:
            raise SettingsError(f"xfail: {method!r} is not one of the marker's methods ({', '.join(named)})")
    reason, strict = kwargs.get("reason", ""), kwargs.get("strict")
    if type(reason) is not str or strict not in (None, True, False):
        raise SettingsError("reason is a string, and strict True or False")
    if not methods:
        if reason or strict is not None:
            raise SettingsError("reason and strict go with xfail")
        return (), None
    import pytest

    options: dict[str, Any] = {} if strict is None else {"strict": bool(strict)}
    return tuple(methods), pytest.mark.xfail(reason=reason, **options)


_KEYWORDS = ("vacuous", "timeout", "xfail", "reason", "strict")


def _is_a(value: object, kind: type[_T]) -> TypeGuard[_T]:
    """Return whether `value` is of type `kind`. Unlike ``isinstance``, never reads ``__class__``: it may run code."""
    return issubclass(type(value), kind)


def _named(arg: object, backends: Callable[[], Collection[str]]) -> Named:
    valid = f"(valid: {', '.join(selection.ORDER)})"
    marks: tuple[Any, ...] = ()
    id_: object = None
    # pytest.param returns a named tuple of a private type.
    if _is_a(arg, tuple) and getattr(type(arg), "_fields", None) == ("values", "marks", "id"):
        values, marks, id_ = arg
        if len(values) != 1:
            raise SettingsError(f"pytest.param takes one start method here, not {len(values)} values {valid}")
        arg = values[0]
    if not _is_a(arg, str):
        raise SettingsError(
            f"a start method is given by its name, not by an object of type {type(arg).__name__} {valid}"
        )
    wrong = selection.problem(arg, backends)
    if wrong is not None:
        raise SettingsError(f"{wrong} {valid}")
    return Named(arg, tuple(marks), id_)


def _vacuous(value: object) -> str | None:
    if value is None or (_is_a(value, str) and value in VACUOUS):
        return value
    text = repr(value) if _is_a(value, str) else f"an object of type {type(value).__name__}"
    raise SettingsError(f"vacuous: {text} is not valid (valid: {', '.join(VACUOUS)})")


def _timeout(value: object) -> float | None:
    if value is None:
        return None
    if (_is_a(value, int) or _is_a(value, float)) and not _is_a(value, bool) and 0 <= value <= MOST_SECONDS:
        return float(value)
    if _is_a(value, int) and abs(value) > MOST_SECONDS:  # too many digits for Python to print, possibly
        text = f"a number {'above' if value > 0 else 'below minus'} {MOST_SECONDS:.0f}"
    else:
        text = repr(value) if type(value) in (str, int, float, bool) else f"an object of type {type(value).__name__}"
    raise SettingsError(f"timeout: {text} is not a number of seconds (valid: a positive number, or 0 for no limit)")
