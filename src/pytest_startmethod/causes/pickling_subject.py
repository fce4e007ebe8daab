"""The object that a pickling finding reports: its path, its name in a sentence, and where it was set."""

from __future__ import annotations

import os
import re
import types
from collections.abc import Sequence

from .._compat import cpython
from ..child.values import mro
from ..model.codes import CAUSES
from ..model.finding import Finding
from ..model.place import Place
from ..model.walk import Leaf, path_text
from ..pickling.dry_run import Call
from ..pickling.walk import attributes
from ..source import kinds, places
from ..source.callers import owner
from .naming import qualname, text_attribute
from .pickling_search import Mode, path_of


class Subject:
    """The reported object: a leaf, or a resource that contains leaves."""

    def __init__(self, root: object, group: list[tuple[Leaf, int]], mode: Mode) -> None:
        self.root = root
        self.mode = mode
        self.group = group
        self.leaf, self.at = group[0]
        self.chain = self.leaf.chain[: self.at + 1]
        self.obj = self.chain[-1][1] if self.chain else self.leaf.root
        self.steps = [step for step, _ in self.chain]
        self.path = path_of(root, self.steps)
        self.is_leaf = self.at == len(self.leaf.chain) - 1

    def make(
        self, code: str, place: Place | None, message: str, evidence: Sequence[str], fix: str, path: str | None = None
    ) -> Finding:
        """Return a finding about the subject."""
        file, line = (place.file, place.line) if place else (None, None)
        facts = tuple(dict.fromkeys(each for each in evidence if each))
        if isinstance(self.root, Call) and self.root.form != "call" and self.steps[:1] == [("attribute", "args")]:
            facts = (f"in item {self.steps[1][1]} of the batch", *facts) if len(self.steps) > 1 else facts
        return Finding(
            code, CAUSES[code].name, "cause", self.path if path is None else path, file, line, message, facts, fix
        )

    def name(self) -> str:
        """Return the object's name for a sentence: ``Holder.resource``, or its path."""
        if self.steps and self.steps[-1][0] == "attribute" and not str(self.steps[-1][1]).startswith("__"):
            parent = self.chain[-2][1] if len(self.chain) > 1 else self.leaf.root
            if not isinstance(parent, (Call, types.MethodType)) and kinds.is_users(type(parent)):
                return f"{kinds.type_name(type(parent))}.{self.steps[-1][1]}"
        return self.path

    def because(self, inner: list[tuple[Leaf, int]]) -> list[str]:
        """Return an evidence line for each part that keeps the resource from pickling."""
        if not inner:
            return [f"because: {one_line(self.leaf.error)}"]
        lines = []
        for leaf, at in inner[:4]:
            steps = [step for step, _ in leaf.chain[at + 1 :]]
            if steps[-1] == ("attribute", "__class__") and len(steps) > 1:
                steps.pop()
            lines.append(f"because: its {path_text('', steps).lstrip('.')} is {leaf_text(leaf)}")
        if len(inner) > 4:
            lines.append(f"because: {len(inner) - 4} more parts of it do not pickle")
        return lines

    def passes(self, value: object) -> bool:
        """Return whether `value` is already passed as an argument."""
        root = self.root
        own = vars(root) if isinstance(root, Call) else dict(attributes(root)) if cpython.is_process(root) else {}
        args = own.get("args", own.get("_args")) or ()
        kwargs = own.get("kwargs", own.get("_kwargs")) or {}
        return type(args) is tuple and any(each is value for each in (*args, *kwargs.values()))

    def holder(self, place: Place | None) -> tuple[str, str] | None:
        """Return the user's class and attribute that hold the object, directly or in plain containers.

        The class is the one whose method sets the attribute at `place`: a base class's mends all its subclasses.
        """
        for i in range(len(self.chain) - 1, -1, -1):
            step = self.steps[i]
            parent = self.chain[i - 1][1] if i else self.leaf.root
            if step[0] == "attribute" and not isinstance(parent, Call) and not str(step[1]).startswith("__"):
                if not kinds.is_users(type(parent)) or isinstance(parent, BaseException):
                    return None
                setter = "" if place is None else place.function.rpartition(".")[0]
                users = filter(kinds.is_users, mro(type(parent)))
                found = [each for each in users if qualname(each).replace("<locals>.", "") == setter]
                return kinds.type_name(*found[:1] or [type(parent)]), str(step[1])
            if step[0] not in ("item", "element", "key"):
                return None
        return None

    def holder_class(self) -> type | None:
        """Return the user's innermost class that holds the object, or None."""
        for i in range(len(self.chain) - 1, -1, -1):
            parent = self.chain[i - 1][1] if i else self.leaf.root
            t = type(parent)
            if not isinstance(parent, (Call, types.MethodType)) and kinds.is_users(t):
                return t
        return None

    def set_at(self) -> tuple[Place | None, list[str]]:
        """Return the line that set the object, and the evidence, including other candidates."""
        extra = self.files()
        found: list[Place] = []
        deeper: list[Place] = []
        said = "set at"
        for i in range(len(self.chain) - 1, -1, -1):
            step, obj = self.chain[i]
            parent = self.chain[i - 1][1] if i else self.leaf.root
            ours = isinstance(parent, Call) or (cpython.is_process(parent) and step[1] in cpython.PROCESS_FIELDS)
            if step[0] == "attribute" and not ours and type(parent) is not types.MethodType:
                found = places.attribute_places(parent, str(step[1]), obj, extra)
                if found and owner(found[0].file) == "installed" and i:  # the user's line is further out
                    deeper, found = deeper or found, []
                if found:
                    break
            held = places.names_in_callers(obj) if not isinstance(obj, (tuple, types.MethodType)) else []
            if held:
                found = [place for _, place in held]
                said = f"`{held[0][0]}`, set at"
                break
            if step[0] == "item" and type(step[1]) is str:
                found = places.item_places(parent, step[1], obj, extra)
                if found:
                    break
            if step[0] == "attribute" and not str(step[1]).startswith("__") and kinds.is_users(type(parent)):
                break
        found, deeper = found or deeper, deeper if found else []
        maker = places.maker_of(self.obj)
        if not found and maker is not None:
            return maker.place, [f"made by `{maker.place.function.rpartition('<locals>.')[2]}` at "
                                 f"{maker.place.file}:{maker.place.line}: {maker.place.source}"]  # fmt: skip
        evidence = []
        if len(found) > 1:
            evidence = [f"{'or ' if n else ''}{said} {p.file}:{p.line}: {p.source}" for n, p in enumerate(found[:6])]
        elif found:
            evidence = [f"{said} {found[0].file}:{found[0].line}: {found[0].source}"]
        evidence += [f"held by what is set at {place.file}:{place.line}: {place.source}" for place in deeper[:1]]
        held_by = self.holder_class()
        if held_by is not None:
            definition = places.class_definition(held_by)
            if definition is not None:
                where = f"{definition.place.file}:{definition.place.line}"
                evidence.append(f"`{kinds.type_name(held_by)}` is defined at {where}")
                if not found:
                    return definition.place, evidence
        return (found[0] if found else None), evidence

    def files(self) -> list[str]:
        """Return the files to search for assignments: the target's and those of the user's classes."""
        root = self.root
        target = root.target if isinstance(root, Call) else None
        if cpython.is_process(root):
            target = object.__getattribute__(root, "__dict__").get("_target")
        out = []
        code = places.code_of(getattr(target, "func", target) if type(target).__name__ == "partial" else target)
        if code is not None and owner(code.co_filename) == "user":
            out.append(os.path.abspath(code.co_filename))
        for _, obj in self.chain:
            file = places.module_file(text_attribute(type(obj), "__module__"))
            if file is not None and owner(file) == "user":
                out.append(file)
        return list(dict.fromkeys(out))


def leaf_text(leaf: Leaf) -> str:
    """Describe a leaf in a few words."""
    obj = leaf.obj
    if leaf.kind == "name":
        what = "a class" if isinstance(obj, type) else "a function"
        name = qualname(obj)
        return f"{what} that cannot be imported, {name}"
    return noun_of(obj)


def noun_of(obj: object) -> str:
    """Describe an object by its kind, adding its type unless the kind implies it."""
    kind, name = kinds.kind_of(obj), type_text(obj)
    if kind is None:
        return f"{with_article(name)} object"
    return kind.noun if name in kind.noun else f"{kind.noun} ({name})"


def type_text(obj: object) -> str:
    """Return the name of an object's type."""
    return kinds.type_name(type(obj))


def with_article(noun: str) -> str:
    """Return a noun with its indefinite article: a Lock, an Event, an RLock."""
    return f"{'an' if re.match(r'[aeiouAEIOU]|[FHLMNRSX][A-Z]', noun) else 'a'} {noun}"


def one_line(error: BaseException) -> str:
    """Return an exception's type and message, without addresses."""
    try:
        text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(str(error).split()))
    except Exception:
        text = ""
    name = type(error).__name__
    text = text if len(text) <= 200 else text[:190] + "..."
    return (f"{name}: {text}" if text else name).rstrip(".")
