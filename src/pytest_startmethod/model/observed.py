"""What the code of a launch or task reads and writes, with the values of the parent and of fresh children."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .place import Place

Step = tuple[str, Any]
"""``("attr", name)`` or ``("item", key)``."""


@dataclass(frozen=True, slots=True)
class Where:
    """An instruction: absolute file, line, qualified name of the function, and its text."""

    file: str
    line: int
    function: str
    instruction: str
    offset: int = field(default=-1, compare=False)
    """Where it lies in the function's code."""


@dataclass(slots=True)
class Read:
    """One place that reads one thing."""

    module: str
    names: tuple[str, ...]
    """From the module on: ``("Class", "attribute")``."""
    steps: tuple[Step, ...]
    """What of the value is read; empty: all of it."""
    where: Where
    """Where the name is looked up."""
    inner: Where | None = None
    """Where `steps` end, if that is in another function: a method of the value."""
    called: bool = False
    whole: bool = False
    refined: bool = False
    also: list[Where] = field(default_factory=list)
    """More places that read it."""
    depth: int = 0
    """How many functions lie between the target and this one."""
    after_write: bool = False
    """Whether the same function has bound the name itself by then, whichever way it went."""

    @property
    def path(self) -> str:
        """The dotted name."""
        return ".".join((self.module, *self.names))


@dataclass(frozen=True, slots=True)
class Write:
    """One place that changes a global, an attribute of one, or an object that was captured or passed."""

    module: str
    """Empty: `names` is a variable of the target's closure, or ``args[0]``."""
    names: tuple[str, ...]
    where: Where
    rebinds: bool
    """True: the name is bound anew. False: the object behind it is changed."""

    @property
    def path(self) -> str:
        """The dotted name."""
        return ".".join(filter(None, (self.module, *self.names)))


@dataclass(slots=True)
class Reads:
    """All that was found."""

    reads: list[Read] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    environment: dict[str, Where] = field(default_factory=dict)
    """Keys of ``os.environ``."""
    loggers: dict[str, Where] = field(default_factory=dict)
    """Names given to ``logging.getLogger``, and those of loggers in globals."""
    configuration: dict[str, Where] = field(default_factory=dict)
    """Attributes by which the code reads how logging is configured."""
    signals: dict[str, Where] = field(default_factory=dict)
    imports: dict[str, Where] = field(default_factory=dict)
    """Modules imported while the code runs."""
    libraries: dict[str, Where] = field(default_factory=dict)
    """Top-level packages of others whose functions, classes or values the user's code uses itself."""
    touched: dict[str, Where] = field(default_factory=dict)
    """Modules of the standard library and numpy whose attributes are read, with the first place."""
    roots: list[str] = field(default_factory=list)
    """The modules that a child imports in order to load what it is given."""
    all_reads: list[Read] = field(default_factory=list)
    """Every read, also of what is only looked into."""
    functions: int = 0
    codes: list[tuple[str, str, int]] = field(default_factory=list)
    """File, qualified name and first line of each function that was looked at."""


@dataclass(slots=True)
class Binding:
    """One name that the code reads, with a part of its value."""

    module: str
    names: tuple[str, ...]
    steps: tuple[tuple[str, Any], ...]
    node: Any
    """The description of what the parent has there."""
    read: Read
    users: bool
    """Whether the module is the user's."""
    rebound: bool
    """Whether a function or class stands there that is another's by its name or its place."""
    of_class: bool
    kind: str
    """The type of the whole value."""
    shadows: tuple[str, ...] = ()
    """Functions that the value itself holds under a name that its class has."""

    @property
    def path(self) -> str:
        """The dotted name of the binding."""
        return ".".join((self.module, *self.names))

    @property
    def inner(self) -> str:
        """The steps from there to the part, as code writes them."""
        return "".join(f".{key}" if kind == "attr" else f"[{key!r}]" for kind, key in self.steps)


@dataclass(frozen=True, slots=True)
class Lost:
    """Something that the child changes and the parent reads afterwards."""

    write: Write
    reads: tuple[Where, ...]
    name: str
    """What the parent calls it."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A number that travels to the child, or that its code reads, and that is an open descriptor of the parent's."""

    path: str
    """``"args[0]"``, ``"target.__self__.fd"``, ``"pkg.mod.FD"``, ``"os.environ['FD']"``."""
    number: int
    kind: str
    """``"a pipe"``, ``"a socket"``, ``"a file"``..."""


@dataclass(slots=True)
class Observed:
    """What the code of one launch or task reads and writes, and what the parent had there when it was started."""

    method: str
    target: str
    place: Place | None
    bindings: list[Binding] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    primitives: list[Binding] = field(default_factory=list)
    """Names that lead to one of multiprocessing's own objects."""
    databases: list[Binding] = field(default_factory=list)
    """Names that lead to a connection of sqlite3: a database in memory is nobody else's."""
    lost: list[Lost] = field(default_factory=list)
    environment: dict[str, Where] = field(default_factory=dict)
    loggers: dict[str, Where] = field(default_factory=dict)
    configuration: dict[str, Where] = field(default_factory=dict)
    signals: dict[str, Where] = field(default_factory=dict)
    imports: dict[str, Where] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()
    """Of `imports`, those that ``sys.modules`` keeps from being imported."""
    touched: dict[str, Where] = field(default_factory=dict)
    ambient: dict[str, Any] = field(default_factory=dict)
    roots: list[str] = field(default_factory=list)
    libraries: dict[str, Where] = field(default_factory=dict)
    """As `Reads.libraries`."""
    heavy: list[str] = field(default_factory=list)
    """Installed modules that the user's modules hold."""
    codes: list[tuple[str, str, int]] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    descriptors: list[Descriptor] = field(default_factory=list)
    prepare: dict[str, Any] = field(default_factory=dict)
    packages: frozenset[str] = frozenset()
    """Installed top-level packages that count as the user's code."""

    @property
    def print(self) -> str:
        """What tells the parent's values apart from those at another launch."""
        environment = [(name, self.environ.get(name)) for name in self.environment]
        return repr(([(b.path, b.node) for b in self.bindings], environment, self.ambient))

    @property
    def reads_state(self) -> bool:
        """Whether there is anything that a child could have otherwise."""
        return bool(self.bindings or self.touched or self.imports or self.signals)


@dataclass(slots=True)
class Seen:
    """What a fresh child has."""

    values: list[Any]
    imports: dict[str, bool]
    ambient: dict[str, Any]
    broken: dict[str, str]
    """Modules that it could not import, and why."""
    took: dict[str, float] = field(default_factory=dict)
    """Seconds that it needed to import each module which the launch's code needs first."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One binding that a fresh child has otherwise."""

    binding: Binding
    inner: str
    """The path within the value to the first difference."""
    ours: Any
    theirs: Any
    others: tuple[str, ...] = ()
    """More paths that differ."""
    varies: bool = False
    """Whether it also differs between two fresh children: made anew at import."""
