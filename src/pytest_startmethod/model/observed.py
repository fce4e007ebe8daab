"""What the code of a launch or task reads and writes, with the values of the parent and of fresh children."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .place import Place
from .wire import Json

Node = list[Any]
"""The description of a value: `child.values.describe`."""
Step = tuple[str, object]
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
    """One place that reads a value."""

    module: str
    names: tuple[str, ...]
    """From the module on: ``("Class", "attribute")``."""
    steps: tuple[Step, ...]
    """Which part of the value is read; empty: all of it."""
    where: Where
    """The instruction that looks up the name."""
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
    """Whether the same function has bound the name before, on every path."""
    changed: bool = False
    """Whether the object is only looked up to be changed in place: nothing depends on its content."""

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


@dataclass(slots=True, kw_only=True)
class Uses:
    """What code uses, apart from values behind names."""

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
    """Top-level third-party packages that the user's code uses directly."""
    touched: dict[str, Where] = field(default_factory=dict)
    """Modules of the standard library and numpy whose attributes are read, with the first place."""
    roots: list[str] = field(default_factory=list)
    """The modules that a child imports in order to load its payload."""
    codes: list[tuple[str, str, int]] = field(default_factory=list)
    """File, qualified name and first line of each function analysed."""


@dataclass(slots=True)
class Reads(Uses):
    """Everything that the analysis found."""

    reads: list[Read] = field(default_factory=list)
    all_reads: list[Read] = field(default_factory=list)
    """Every read, including those that are only steps to a part."""
    functions: int = 0


@dataclass(slots=True)
class Binding:
    """One name that the code reads, with a part of its value."""

    module: str
    names: tuple[str, ...]
    steps: tuple[tuple[str, object], ...]
    node: Node
    """The description of the parent's value."""
    read: Read
    rebound: bool
    """Whether the value is a function or class that was defined under another name or elsewhere."""
    of_class: bool
    kind: str
    """The type of the whole value."""
    shadows: tuple[str, ...] = ()
    """Functions in the instance's namespace that shadow a name of its class."""

    @property
    def path(self) -> str:
        """The dotted name of the binding."""
        return ".".join((self.module, *self.names))

    @property
    def inner(self) -> str:
        """The steps from there to the part, written as code."""
        return "".join(f".{key}" if kind == "attr" else f"[{key!r}]" for kind, key in self.steps)


@dataclass(frozen=True, slots=True)
class Lost:
    """A value that the child changes and the parent reads afterwards."""

    write: Write
    reads: tuple[Where, ...]
    name: str
    """Its name in the parent."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A number sent to the child, or read by its code, that is an open descriptor in the parent."""

    path: str
    """``"args[0]"``, ``"target.__self__.fd"``, ``"pkg.mod.FD"``, ``"os.environ['FD']"``."""
    number: int
    kind: str
    """``"a pipe"``, ``"a socket"``, ``"a file"``..."""


@dataclass(slots=True)
class Observed(Uses):
    """What the code of one launch or task reads and writes, and what the parent had there when it was started."""

    method: str
    target: str
    place: Place | None
    bindings: list[Binding] = field(default_factory=list)
    primitives: list[Binding] = field(default_factory=list)
    """Names that lead to one of multiprocessing's own objects."""
    databases: list[Binding] = field(default_factory=list)
    """Names that lead to a connection of sqlite3: a database in memory exists in one process only."""
    lost: list[Lost] = field(default_factory=list)
    held: list[tuple[str, Where]] = field(default_factory=list)
    """Path and place of each lock of `threading` that is read, and was held when the child was forked."""
    blocked: frozenset[str] = frozenset()
    """Of `imports`, those that ``sys.modules`` keeps from being imported."""
    ambient: Json = field(default_factory=dict)
    misled: str = ""
    """The name that leads the start of a child astray: ``"sys.frozen"``, ``"multiprocessing.set_executable"``."""
    import_hooks: bool = False
    """Whether the user had import hooks of their own."""
    heavy: list[str] = field(default_factory=list)
    """Installed modules that the user's modules hold."""
    environ: dict[str, str] = field(default_factory=dict)
    reducers: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The classes that the parent was told how to pickle: where that is kept, and the function's name."""
    arrays: list[tuple[str, str]] = field(default_factory=list)
    """Paths of the arrays that are sent and lie in shared memory, and what kind of memory that is."""
    descriptors: list[Descriptor] = field(default_factory=list)
    is_task: bool = False
    """Whether a worker loads it, rather than a process that is starting."""
    prepare: Json = field(default_factory=dict)
    packages: frozenset[str] = frozenset()
    """Installed top-level packages that count as the user's code."""

    @property
    def print(self) -> str:
        """A text that changes when the parent's values change between launches."""
        environment = [each for each in sorted(self.environ.items()) if not each[0].startswith("PYTEST_")]
        return repr(([(b.path, b.node) for b in self.bindings], environment, self.ambient))

    @property
    def reads_state(self) -> bool:
        """Whether a child could have other values."""
        return bool(self.bindings or self.touched or self.imports or self.signals)


@dataclass(slots=True)
class Seen:
    """What a fresh child has."""

    values: list[Node]
    imports: dict[str, bool]
    ambient: Json
    broken: dict[str, str]
    """Modules that could not be imported, and why."""
    took: dict[str, float] = field(default_factory=dict)
    """Import time in seconds of each module that the launch needs first."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One binding whose value differs in a fresh child."""

    binding: Binding
    inner: str
    """The path within the value to the first difference."""
    ours: Node
    theirs: Any
    others: tuple[str, ...] = ()
    """More paths that differ."""
    varies: bool = False
    """Whether it also differs between two fresh children, being computed at import."""
