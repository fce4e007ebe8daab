"""In generated trees of fixtures, scopes and parameters, each leg runs once, under its method, with its fixtures."""

from __future__ import annotations

import collections
import itertools
import json
import multiprocessing
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import inputs

METHODS = ("fork", "spawn", "forkserver")
SCOPES = ("session", "module", "class", "function")

pytestmark = pytest.mark.skipif(
    len(multiprocessing.get_all_start_methods()) < 3, reason="the generated suites use all three methods"
)


class Fixture(NamedTuple):
    """A fixture that requests the method, an earlier fixture of sufficient scope, or nothing."""

    scope: str
    asks_method: bool
    asks_other: bool


class Case(NamedTuple):
    """A test: in a class or not, marked or not, with some of the fixtures and parameters."""

    in_class: bool
    methods: tuple[str, ...] | None
    fixtures: frozenset[int]
    parameters: int


fixtures = st.lists(st.builds(Fixture, st.sampled_from(SCOPES), st.booleans(), st.booleans()), max_size=3)
chosen = st.lists(st.sampled_from(METHODS), min_size=1, unique=True).map(
    lambda names: tuple(name for name in METHODS if name in names)
)
cases = st.lists(
    st.builds(Case, st.booleans(), st.none() | chosen, st.frozensets(st.integers(0, 2), max_size=2), st.integers(0, 2)),
    min_size=1,
    max_size=4,
)


_count = itertools.count()


class Suite:
    """The source of a generated suite, and its expected outcome."""

    def __init__(self, made: list[Fixture], wanted: list[Case]) -> None:
        self.needs: list[list[str]] = []
        self.asks: list[bool] = []
        self.scopes = [each.scope for each in made]
        for number, each in enumerate(made):
            other = each.asks_other and number > 0 and SCOPES.index(made[number - 1].scope) <= SCOPES.index(each.scope)
            self.needs.append([*["start_method"] * each.asks_method, *[f"fix{number - 1}"] * other])
            self.asks.append(each.asks_method or (other and self.asks[number - 1]))
        self.cases = [case._replace(fixtures=frozenset(f for f in case.fixtures if f < len(made))) for case in wanted]

    def is_leg(self, case: Case) -> bool:
        return case.methods is not None or any(self.asks[number] for number in case.fixtures)

    def source(self) -> str:
        lines = ["import json, multiprocessing, pytest", "def log(*event):"]
        lines += ["    with open('events.jsonl', 'a') as file: file.write(json.dumps(event) + '\\n')"]
        for number, needs in enumerate(self.needs):
            method = "multiprocessing.get_start_method()" if self.asks[number] else "None"
            lines += [f"@pytest.fixture(scope={self.scopes[number]!r})", f"def fix{number}({', '.join(needs)}):"]
            lines += [f"    log('+fix{number}', {method})", "    yield", f"    log('-fix{number}', {method})"]
        for number, case in enumerate(self.cases):
            margin = "    " * case.in_class
            lines += [f"class Test{number}:"] * case.in_class
            if case.methods is not None:
                names = ", ".join(map(repr, case.methods))
                lines += [f"{margin}@pytest.mark.startmethods({names}, vacuous='ignore')"]
            names = ["self"] * case.in_class + [f"fix{each}" for each in sorted(case.fixtures)]
            if case.parameters:
                lines += [f"{margin}@pytest.mark.parametrize('n', range({case.parameters}))"]
                names.append("n")
            n = "n" if case.parameters else "0"
            lines += [f"{margin}def test_{number}({', '.join(names)}):"]
            lines += [f"{margin}    log('test_{number}', multiprocessing.get_start_method(), {n})"]
        return "\n".join(lines) + "\n"


@inputs(8)
@given(fixtures, cases)
def test_each_leg_runs_once_under_its_method(session: Any, made: list[Fixture], wanted: list[Case]) -> None:
    """Fixtures that request the method see it, wider ones are built once per method or once, plain tests keep order."""
    suite = Suite(made, wanted)
    (session.path / "events.jsonl").write_text("")
    name = f"test_suite_{next(_count)}.py"  # a unique name: bytecode files have a resolution of one second
    outcome = session.file(name, suite.source()).run(name)
    assert outcome.status == 0, outcome.out
    events = [tuple(json.loads(line)) for line in (session.path / "events.jsonl").read_text().splitlines()]
    default = multiprocessing.get_all_start_methods()[0]  # whatever an earlier session in this process set
    expected = collections.Counter(
        (f"test_{number}", method, n)
        for number, case in enumerate(suite.cases)
        for method in ((case.methods or METHODS) if suite.is_leg(case) else (default,))
        for n in range(max(case.parameters, 1))
    )
    ran = [event for event in events if event[0].startswith("test_")]
    assert collections.Counter(ran) == expected
    plain = {f"test_{number}" for number, case in enumerate(suite.cases) if not suite.is_leg(case)}
    order = [event[0] for event in ran if event[0] in plain]
    assert order == sorted(order)
    for number, scope in enumerate(suite.scopes):
        built = [event[1] for event in events if event[0] == f"+fix{number}"]
        if scope in ("session", "module"):
            assert len(built) == len(set(built)), suite.source()
