"""Count false alarms over installed packages: ``python benchmarks/false_alarms.py PACKAGE...``.

For each package, in a process of its own that has imported it: every public function and class of its modules is
handed to what `pytest_startmethod.explain` asks. A spawned child of `multiprocessing` is the judge. It loads the
function's pickle, and reads what a finding about state names. Wrong is

- a finding that it does not load, where the child has loaded it as the same object;
- a finding about state, where the child has the parent's value;
- silence about a function that the child could not load.

``--limit N`` looks at no more than N functions of a package, evenly spread; 150 by default.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import multiprocessing
import os
import pickle
import pkgutil
import re
import subprocess
import sys
import types
import warnings
from collections.abc import Mapping
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src"))

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def public(package: str) -> list[Any]:
    """Return the functions and classes that the package's public modules bind by a public name and define."""
    root = importlib.import_module(package)
    for info in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{package}.", onerror=id):
        if not re.search(r"\._|\.tests?\b|\.conftest|\.testing|__main__|\.migrations", info.name):
            try:
                importlib.import_module(info.name)
            except BaseException as error:
                print(f"    not imported: {info.name}: {type(error).__name__}", file=sys.stderr)
    found = {}
    for name, module in sorted(sys.modules.items()):
        if (name == package or name.startswith(f"{package}.")) and type(module) is types.ModuleType:
            for key, value in sorted(vars(module).items()):
                home = str(getattr(value, "__module__", "")).partition(".")[0]
                if isinstance(value, (types.FunctionType, type)) and not key.startswith("_") and home == package:
                    found[id(value)] = value
    return list(found.values())


def account(value: Any, depth: int = 6) -> str:
    """Return what a process can say of a value that another one can say of its own: its structure, not its address."""
    code = getattr(value, "__code__", None)
    if code is not None:
        return f"{value.__module__}.{value.__qualname__}:{code.co_firstlineno}"
    own = (
        []
        if isinstance(value, (type, types.ModuleType)) or depth < 0
        else sorted(getattr(value, "__dict__", {}).items())
    )
    parts: list[Any] = []
    if depth > 0 and isinstance(value, Mapping):
        parts = sorted(f"{account(k, depth - 1)}: {account(v, depth - 1)}" for k, v in value.items())
    elif depth > 0 and isinstance(value, (list, tuple, set, frozenset)):
        parts = [account(each, depth - 1) for each in value]
        parts = sorted(parts) if isinstance(value, (set, frozenset)) else parts
    text = "" if parts else _ADDRESS.sub("0x", repr(value))
    return f"{type(value).__name__} {text} {parts} {[(k, account(v, depth - 2)) for k, v in own]}"


def reached(path: str) -> str:
    """Return an account of what a dotted path such as ``pkg.settings.DEBUG`` leads to in this process."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(parts[:count]))
        if module is not None:
            try:
                value: Any = module
                for part in parts[count:]:
                    value = getattr(value, part)
            except Exception as error:
                return f"{type(error).__name__} {error}"
            return account(value)
    return "no module"


def judge(connection: Connection) -> None:
    """Answer, in a spawned child: what each pickle loads as, and what each path leads to afterwards."""
    pickles, paths = connection.recv()
    loaded = []
    for data in pickles:
        try:
            loaded.append(account(pickle.loads(data)))
        except BaseException as error:
            loaded.append(f"does not load: {type(error).__name__} {error}")
    connection.send((loaded, [reached(path) for path in paths]))


def ask(pickles: list[bytes], paths: list[str]) -> tuple[list[str], list[str]]:
    """Return the answers of a new child."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=judge, args=(its,))
    process.start()
    its.close()
    mine.send((pickles, paths))
    try:
        return mine.recv()
    finally:
        process.join()


def pickled(target: object) -> bytes:
    """Return the pickle of a function or class, or that of an explanation."""
    try:
        return bytes(reduction.ForkingPickler.dumps(target))
    except Exception as error:
        return pickle.dumps(f"does not pickle: {type(error).__name__} {error}")


def look(package: str, limit: int) -> None:
    """Look at one package and print its line of the table, then each finding."""
    from pytest_startmethod.causes.call import explain_call
    from pytest_startmethod.pickling.dry_run import Call
    from pytest_startmethod.state import fresh_child

    every = public(package)
    chosen = every[:: max(1, -(-len(every) // limit))]
    pickles = [pickled(target) for target in chosen]
    arrived, _ = ask(pickles, [])
    so, missed, alarms, lines = 0, 0, 0, []
    with fresh_child.Loader() as loader, fresh_child.Loader() as other:
        for target, data, loaded in zip(chosen, pickles, arrived, strict=True):
            name, good = f"{target.__module__}.{target.__qualname__}", loaded == account(target)
            found = explain_call(Call(target, (), {}), (loader, other), method="spawn")
            causes = [each for each in found if each.level == "cause"]
            if not causes and not good:
                missed += 1
                lines.append(f"    missed      {name}: {loaded}")
            paths = [each.path for each in causes if each.code.startswith("SM3")]
            there = dict(zip(paths, ask([data], paths)[1], strict=True)) if paths else {}
            for each in causes:
                right = there[each.path] != reached(each.path) if each.path in there else not good
                so, alarms = so + right, alarms + (not right)
                word = "so" if right else "FALSE ALARM"
                lines.append(f"    {word:11} {name}: {each.code} {each.path}: {each.message}")
    distribution = importlib.metadata.packages_distributions().get(package, [package])[0]
    version = importlib.metadata.version(distribution)
    print(f"{distribution:20} {version:12} {len(every):6} {len(chosen):6} {so:5} {missed:7} {alarms:7}")
    print("\n".join(lines), end="\n" if lines else "")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        warnings.simplefilter("ignore")
        look(options.packages[0], options.limit)
        return 0
    print(f"{'package':20} {'version':12} {'public':>6} {'tried':>6} {'so':>5} {'missed':>7} {'alarms':>7}", flush=True)
    for package in options.packages:
        subprocess.run([sys.executable, __file__, "--one", f"--limit={options.limit}", package], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
