"""Which runs of a failed leg confirm or clear its findings, in what order, and what their outcomes mean. Pure.

`search` is a generator: it yields each `Attempt`, is sent the `Outcome` of that run, and returns a `Conclusion`. It
runs nothing itself. The order is delta debugging (Zeller and Hildebrandt, 2002): all candidates at once, then halves
until the smallest sufficient set is known, then a control.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ..model.finding import Finding

MOST_RUNS: Final = 6
"""No leg is run again more often than this."""


@dataclass(frozen=True, slots=True)
class ByValue:
    """Functions and classes cross as code, with what they read, where a child could not import them by name."""

    whole: bool = False
    """Also those of the user's that have an importable name: each start then has its own copy of their globals."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The child takes over the parent's value of one binding."""

    path: str
    """``"pkg.settings.DEBUG"``, ``"os.environ['HOME']"``, ``"logging.root"``."""


Experiment = ByValue | Replay

_NAMELESS: Final = ("SM101", "SM102")
_NOT_FOUND: Final = ("SM104", "SM201", "SM202")
_STAYING: Final = ("SM103", "SM105", "SM106", "SM107")
"""Nothing makes these cross: a start that has one fails, whatever else crosses."""
_REPLAYED: Final = ("SM301", "SM302", "SM303", "SM304", "SM305", "SM306", "SM307")
STRUCTURAL: Final = ("SM307",)
"""Findings that a flaky leg keeps: an unshared lock is what makes races."""


def experiment_of(finding: Finding) -> Experiment | None:
    """Return the experiment that removes the cause which `finding` names, or None if there is none."""
    if finding.code in _NAMELESS and not finding.path:
        return None  # a start of the child's own: nothing that the parent sends is in it
    if finding.code == "SM201" and finding.path in sys.modules:
        return None  # an import within a function: it fails whatever is sent
    if finding.code in (*_NAMELESS, *_NOT_FOUND):
        return ByValue(whole=finding.code in _NOT_FOUND)
    if finding.code in _REPLAYED and finding.path:
        return Replay(finding.path)
    return None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An experiment, and the findings that it confirms or clears."""

    experiment: Experiment
    findings: tuple[Finding, ...]
    hidden: bool = False
    """Its findings are reported only if they are confirmed."""


def candidates(
    findings: Iterable[Finding], hidden: Iterable[Finding] = (), touched: Collection[tuple[str, str]] = ()
) -> list[Candidate]:
    """Return what can be tried: causes that the failing tracebacks touched, other causes, notes, `hidden` findings.

    `touched` holds file and function of each frame of those tracebacks. Findings with the same experiment share one
    candidate. While something cannot be pickled at all, sending functions by value proves nothing.
    """
    findings = list(findings)
    files = {file for file, _ in touched}
    staying = any(each.code in _STAYING and each.level == "cause" for each in findings)
    found: dict[Experiment, list[Finding]] = {}
    for finding in findings:
        experiment = experiment_of(finding)
        if experiment is not None and finding.confirmed is None and not (staying and experiment == ByValue()):
            found.setdefault(experiment, []).append(finding)
    known = [Candidate(experiment, tuple(served)) for experiment, served in found.items()]

    def rank(each: Candidate) -> tuple[bool, bool]:
        return (
            all(finding.level != "cause" for finding in each.findings),
            not any(finding.file in files for finding in each.findings),
        )

    more = [(experiment_of(each), each) for each in hidden]
    return [
        *sorted(known, key=rank),
        *(Candidate(what, (each,), hidden=True) for what, each in more if what is not None and what not in found),
    ]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One more run of the leg."""

    experiments: tuple[Experiment, ...] = ()
    """The causes that are removed; empty: the leg runs as it is."""
    control: bool = False
    """The child does everything that a replay does, and keeps its own values."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of the leg ended."""

    passed: bool
    failure: tuple[str, ...] = ()
    """What failed, see `failure`; empty if nothing did, or if the test was skipped."""
    unsent: frozenset[Experiment] = frozenset()
    """The experiments that did not reach every child."""
    in_time: bool = True
    met: tuple[Finding, ...] = ()
    """The diagnosis of a failure that is not the leg's usual one."""
    imported: frozenset[Experiment] = frozenset()
    """Of a control: where importing what the parent's value holds gave the child that value."""
    more: tuple[Finding, ...] = ()
    """What a second look at an unchanged run found; notes are reported only if they are confirmed."""


@dataclass(slots=True)
class Conclusion:
    """What the runs say."""

    flaky: bool = False
    confirmed: tuple[Candidate, ...] = ()
    """The smallest set known to be enough: without any of these the test fails, with all of them it passes."""
    cleared: tuple[Candidate, ...] = ()
    """With all of these out of the way, the test fails the same way."""
    needless: tuple[Candidate, ...] = ()
    """The test passes with these, and also if the child keeps its own values."""
    necessary: Candidate | None = None
    """With this out of the way, the test fails in another way."""
    met: tuple[Finding, ...] = ()
    """The diagnosis of that other failure."""
    more: tuple[Finding, ...] = ()
    """Causes that a second look at the unchanged run found."""
    runs: int = 0


@dataclass(slots=True)
class Failures:
    """How a leg fails if nothing is changed; knows which tokens vary from run to run."""

    _texts: list[list[list[str]]] = field(default_factory=list)
    _varying: set[tuple[int, int]] = field(default_factory=set)
    """Line and token."""

    def add(self, failure: Sequence[str]) -> None:
        """Take one more failure of an unchanged run: where it differs from an earlier one of its shape, it varies."""
        new = [_TOKEN.findall(line) for line in failure]
        for old in self._texts:
            if _shape(old) == _shape(new):
                self._varying.update(self._differing(old, new))
        self._texts.append(new)

    def __contains__(self, failure: Sequence[str]) -> bool:
        """Return whether `failure` is one of these, apart from the tokens that vary."""
        new = [_TOKEN.findall(line) for line in failure]
        return bool(new) and any(
            _shape(old) == _shape(new) and self._varying.issuperset(self._differing(old, new)) for old in self._texts
        )

    @staticmethod
    def _differing(one: list[list[str]], other: list[list[str]]) -> Iterable[tuple[int, int]]:
        for line, (some, others) in enumerate(zip(one, other, strict=True)):
            yield from ((line, at) for at, (a, b) in enumerate(zip(some, others, strict=True)) if a != b)


_TOKEN: Final = re.compile(r"\w+|\W")


def _shape(text: list[list[str]]) -> list[int]:
    return [len(line) for line in text]


class SpentError(Exception):
    """The leg has had all of its runs, or one was cut off: threads and locks may be left for the next."""


Runs = Generator[Attempt, Outcome, None]


@dataclass(slots=True)
class _Search:
    """The state of one `search`."""

    usual: Failures
    conclusion: Conclusion = field(default_factory=Conclusion)
    hangs: bool = False

    def run(self, these: Sequence[Candidate] = (), *, control: bool = False) -> Generator[Attempt, Outcome, Outcome]:
        """Make one run, unless none is left; the last one is kept for a control."""
        if self.conclusion.runs >= MOST_RUNS - (not control):
            raise SpentError
        self.conclusion.runs += 1
        outcome = yield Attempt(tuple(each.experiment for each in these), control)
        if these and not outcome.in_time and not self.hangs:
            raise SpentError
        return outcome

    def all_at_once(self, every: list[Candidate]) -> Runs:
        """Try all of `every`; if that is enough, find the smallest part that is."""
        outcome = yield from self.run(every)
        sent = [each for each in every if each.experiment not in outcome.unsent]
        if outcome.passed:
            enough = sent if len(sent) == len(every) else []
            yield from self.confirm(enough)
        elif outcome.failure in self.usual:
            self.conclusion.cleared = tuple(sent)
        elif any(each.hidden for each in every) and not all(each.hidden for each in every):
            yield from self.all_at_once([each for each in every if not each.hidden])
        elif len(sent) == len(every) and outcome.failure:
            yield from self.follow(every, outcome)

    def confirm(self, enough: list[Candidate]) -> Runs:
        """Confirm the smallest part of a set that is enough, unless the test passes without its values, too."""
        if not enough:
            return
        smallest = yield from self.smallest(enough, [])
        if any(type(each.experiment) is Replay for each in smallest):
            control = yield from self.run(smallest, control=True)
            if control.passed and not control.imported.issuperset(each.experiment for each in smallest):
                self.conclusion.needless = tuple(smallest)
                return
        self.conclusion.confirmed = tuple(smallest)

    def smallest(self, some: list[Candidate], beside: list[Candidate]) -> Generator[Attempt, Outcome, list[Candidate]]:
        """Return the smallest part of `some` that is enough together with `beside`; all of it if no run is left."""
        if len(some) < 2:
            return some
        middle = len(some) // 2 if beside or len(some) > MOST_RUNS else 1  # the ranking is right more often than not
        halves = some[:middle], some[middle:]
        for half in halves:
            if (yield from self.enough([*half, *beside])):
                return (yield from self.smallest(half, beside))
        first = yield from self.smallest(halves[0], [*halves[1], *beside])
        return [*first, *(yield from self.smallest(halves[1], [*first, *beside]))]

    def enough(self, these: list[Candidate]) -> Generator[Attempt, Outcome, bool]:
        """Return whether the test passes with `these`; False if no run is left to tell."""
        try:
            outcome = yield from self.run(these)
        except SpentError:
            return False
        if not outcome.unsent and outcome.failure in self.usual:
            self.conclusion.cleared = (*self.conclusion.cleared, *these)
        return outcome.passed and not outcome.unsent

    def follow(self, every: list[Candidate], outcome: Outcome) -> Runs:
        """Follow a leg that fails in another way with `every` out of the way: a second cause was behind the first."""
        if len(every) > 1:
            alone = yield from self.run(every[:1])
            if alone.passed or not alone.failure or alone.failure in self.usual:
                if alone.passed and not alone.unsent:
                    yield from self.confirm(every[:1])
                return
            every, outcome = every[:1], alone
        self.conclusion.necessary, self.conclusion.met = every[0], outcome.met
        more = [each for each in candidates(outcome.met) if each.experiment != every[0].experiment]
        if more and (yield from self.enough([*every, *more])):
            yield from self.confirm([*every, *more])


def search(
    found: Sequence[Candidate], usual: Failures, *, not_pickled: bool = False
) -> Generator[Attempt, Outcome, Conclusion]:
    """Yield the runs to make for a leg that failed as `usual` says, and return what their outcomes say.

    `not_pickled`: a start failed in pickling. That is no flake, so the leg is not run as it is.
    """
    state = _Search(usual)
    try:
        if not not_pickled:
            plain = yield from state.run()
            if plain.passed:
                state.conclusion.flaky = True
                return state.conclusion
            state.hangs = not plain.in_time
            usual.add(plain.failure)
            known = {each.experiment for each in found}
            causes = [each for each in plain.more if each.level == "cause"]
            more = candidates(causes, [each for each in plain.more if each.level != "cause"])
            found = [*found, *(each for each in more if each.experiment not in known)]
            state.conclusion.more = tuple(causes)
        if found:
            yield from state.all_at_once(list(found))
    except SpentError:
        pass
    return state.conclusion


def failure(phase: str, message: str) -> str:
    """Return what failed in a form that is the same in every run: without addresses, pids and temporary paths."""
    line = next((line for line in message.splitlines() if line.strip()), "")
    for pattern, stands_for in _VARYING:
        line = pattern.sub(stands_for, line)
    return f"{phase}: {line[:300]}"


_VARYING: Final = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x"),
    (re.compile(r"\b(pid|parent|id|fd)(=| )'?\d+'?"), r"\1\2#"),
    (re.compile(r"\b(\w*(?:Process|PoolWorker))-[\d:]+"), r"\1-#"),
    (re.compile(r"pytest-of-[^/\s]+/pytest-\d+"), "pytest"),
    (re.compile(r"/tmp[\w-]{6,}"), "/tmp"),
)


def settle(findings: Iterable[Finding], said: Conclusion) -> tuple[Finding, ...]:
    """Return `findings` with what the runs said: confirmed ones first, cleared ones last, otherwise in order.

    A note that is confirmed becomes a cause. Causes that are only enough together become one finding.
    """
    findings = list(findings)
    if said.flaky:
        return tuple(each for each in findings if each.code in STRUCTURAL)
    confirmed = [each for candidate in said.confirmed for each in candidate.findings]
    settled = [replace(each, confirmed=True, level="cause") for each in confirmed]
    if len(said.confirmed) > 1:
        settled = [_together(settled)]
    cleared = {each for candidate in said.cleared for each in candidate.findings}
    needless = {each for candidate in said.needless for each in candidate.findings}
    necessary = said.necessary.findings if said.necessary is not None else ()
    known = {each.key for each in findings}
    more, met = ([each for each in some if each.key not in known] for some in (said.more, said.met))
    rest = []
    for each in (*more, *findings, *met):
        if each in confirmed:
            continue
        if each in cleared:
            each = replace(each, confirmed=False)
        elif each in needless:
            each = replace(each, level="note", evidence=(*each.evidence, _NEEDLESS))
        elif each in necessary and met:
            behind = f"with that out of the way: {met[0].code} {met[0].name}: {met[0].message}"
            each = replace(each, evidence=(*each.evidence, behind))
        rest.append(each)
    return ranked([*settled, *rest])


_NEEDLESS: Final = "the test also passes if the child imports the module early and keeps its own value"


def _together(these: Sequence[Finding]) -> Finding:
    """Return one finding for causes of which none is enough alone."""
    first = these[0]
    return replace(
        first,
        message=" ".join(dict.fromkeys(each.message for each in these)),
        evidence=tuple(dict.fromkeys(line for each in these for line in each.evidence)),
        fix="; ".join(dict.fromkeys(each.fix for each in these if each.fix)),
        facts=tuple(fact for each in these for fact in each.facts),
        together=tuple(dict.fromkeys(each.path or each.name for each in these)),
    )


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return `findings` with the confirmed ones first and the cleared ones last."""
    return tuple(sorted(findings, key=lambda each: 1 if each.confirmed is None else 0 if each.confirmed else 2))
