"""Plan which reruns of a failed leg confirm or clear its findings, and interpret their outcomes. Pure.

`search` is a generator: it yields each `Attempt`, is sent the `Outcome` of that run, and returns a `Conclusion`. The
order is delta debugging (Zeller and Hildebrandt, 2002): all candidates at once, then halves until the smallest
sufficient set is known, then a control.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ..causes.ranking import FOLLOWS
from ..model.finding import COPIED, Finding

MOST_RUNS: Final = 6
"""The most reruns of one leg."""


@dataclass(frozen=True, slots=True)
class ByValue:
    """Send functions and classes that a child could not import by name as code, with the globals they read."""

    whole: bool = False
    """Also the user's importable ones. Each start then has its own copy of their globals."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Give the child the parent's value of one binding."""

    path: str
    """``"pkg.settings.DEBUG"``, ``"os.environ['HOME']"``, ``"logging.root"``.

    ``"atexit.register"`` stands for a child that registers no exit handlers.
    """
    also: tuple[str, ...] = ()
    """Other bindings that go with it: what one tool has replaced."""

    @property
    def paths(self) -> tuple[str, ...]:
        """All bindings."""
        return (self.path, *self.also)


@dataclass(frozen=True, slots=True)
class Copies:
    """Run the test under fork, where it passes, and give each child copies of what it is sent.

    Unlike the others it adds the cause instead of removing it; the control is a run under fork without copies.
    """


@dataclass(frozen=True, slots=True)
class Originals:
    """Send tasks so that their copies differ in nothing at `path`, and leave the parent's object as it is."""

    path: str
    """``"args[0]"``, ``"args[0].limit"``."""


@dataclass(frozen=True, slots=True)
class Unpatched:
    """Start processes with the original of what the test has replaced in the parent."""

    path: str
    """``"builtins.open"``, ``"socket.socket.connect"``."""


Experiment = ByValue | Replay | Copies | Originals | Unpatched

_BY_VALUE: Final = ("SM101", "SM102", "SM103")
_NOT_FOUND: Final = ("SM104", "SM201", "SM202")
_STAYING: Final = ("SM105", "SM106", "SM107")
"""Causes that no experiment can remove: a start with one of them fails anyway."""
_REPLAYED: Final = ("SM301", "SM302", "SM303", "SM304", "SM305", "SM306", "SM307")
_NEVER_CLEARED: Final = ("SM103", "SM203")
"""Causes that a child's own start has shown: a stand-in may lack what the child needs, a forked child loads more."""
STRUCTURAL: Final = ("SM307",)
"""Findings that explain a flaky leg: unshared locks cause races."""


def experiment_of(finding: Finding) -> Experiment | None:
    """Return the experiment that removes the finding's cause, or None."""
    if finding.breaks_start:
        return Unpatched(finding.path)
    if finding.code in _BY_VALUE and not finding.path:
        return None  # the child's own start, which contains nothing sent by the parent
    if finding.code == "SM201" and finding.path in sys.modules:
        return None  # an import inside a function fails whatever is sent
    if finding.code == "SM202" and finding.path in sys.modules:  # a submodule that the code does not import itself
        return Replay(finding.path)
    if finding.code == "SM407" and finding.path.startswith(("copyreg.", "multiprocessing.")):  # a table of reducers
        return Replay(finding.path)
    if finding.code in (*_BY_VALUE, *_NOT_FOUND):
        return ByValue(whole=finding.code in _NOT_FOUND)
    if finding.code == "SM303" and finding.together:
        return Replay(finding.together[0], finding.together[1:])
    if finding.code in _REPLAYED and finding.path:
        return Replay(finding.path)
    if finding.code == "SM604" and not finding.path.startswith("sys."):  # a child cannot be given other streams
        return Replay(finding.path)
    if finding.code in COPIED and finding.every_method:
        return Originals(finding.path)
    if finding.code == "SM309":
        return Replay("atexit.register")
    if (finding.code, finding.path) == ("SM603", "getppid"):
        return Replay("os.getppid")
    return None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An experiment, and the findings that it confirms or clears."""

    experiment: Experiment
    findings: tuple[Finding, ...]
    hidden: bool = False
    """Whether its findings are reported only if confirmed."""


def candidates(
    findings: Iterable[Finding], hidden: Iterable[Finding] = (), touched: Collection[tuple[str, str]] = ()
) -> list[Candidate]:
    """Return the candidates: causes in the failing tracebacks, other causes, notes, `hidden` findings.

    `touched` holds file and function of each frame of those tracebacks. Findings with the same experiment share a
    candidate. If a payload cannot be pickled at all, sending functions by value proves nothing and is left out.
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
    """The causes to remove; empty for an unchanged run."""
    control: bool = False
    """Whether the child only goes through the motions of a replay, and keeps its own values."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of the leg ended."""

    passed: bool
    failure: tuple[str, ...] = ()
    """The failure, see `failure`; empty if the test passed or was skipped."""
    unsent: frozenset[Experiment] = frozenset()
    """The experiments that did not reach every child."""
    in_time: bool = True
    met: tuple[Finding, ...] = ()
    """The diagnosis of a failure other than the usual one."""
    imported: frozenset[Experiment] = frozenset()
    """In a control: the replays whose value the child also got by importing."""
    more: tuple[Finding, ...] = ()
    """Findings of a second look at an unchanged run; notes are reported only if confirmed."""


@dataclass(slots=True)
class Conclusion:
    """The conclusion from all runs."""

    flaky: bool = False
    confirmed: tuple[Candidate, ...] = ()
    """The smallest sufficient set: with all of these removed the test passes, and it fails if any one remains."""
    cleared: tuple[Candidate, ...] = ()
    """Removing all of these did not change the failure."""
    needless: tuple[Candidate, ...] = ()
    """The test passes with these, but also if the child keeps its own values."""
    necessary: Candidate | None = None
    """Removing this made the test fail differently."""
    met: tuple[Finding, ...] = ()
    """The diagnosis of that different failure."""
    more: tuple[Finding, ...] = ()
    """Causes from a second look at the unchanged run."""
    runs: int = 0


@dataclass(slots=True)
class Failures:
    """The failures of unchanged runs, and which of their tokens vary from run to run."""

    own: set[str] = field(default_factory=set)
    """The test's own failures, without those of its children."""
    _texts: list[list[list[str]]] = field(default_factory=list)
    _varying: set[tuple[int, int]] = field(default_factory=set)
    """Indices of line and token."""

    def add(self, failure: Sequence[str]) -> None:
        """Add the failure of an unchanged run. Tokens that differ from an earlier failure of the same shape vary."""
        self.own.update(failure[:1])
        new = [_TOKEN.findall(line) for line in failure]
        for old in self._texts:
            if _shape(old) == _shape(new):
                self._varying.update(self._differing(old, new))
        self._texts.append(new)

    def __contains__(self, failure: Sequence[str]) -> bool:
        """Return whether `failure` is one of these, ignoring tokens that vary."""
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
    """No run is left, or one was cut off: its threads and locks could disturb the next."""


Runs = Generator[Attempt, Outcome, None]


@dataclass(slots=True)
class _Search:
    usual: Failures
    hurried: bool = False
    """Whether there was no time for an unchanged run first: the control then stands for it."""
    hangs: bool = False
    conclusion: Conclusion = field(default_factory=Conclusion)

    def run(self, these: Sequence[Candidate] = (), *, control: bool = False) -> Generator[Attempt, Outcome, Outcome]:
        """Make a run, unless none is left. The last one is reserved for a control."""
        if self.conclusion.runs >= MOST_RUNS - (not control):
            raise SpentError
        self.conclusion.runs += 1
        outcome = yield Attempt(tuple(each.experiment for each in these), control)
        if these and not outcome.in_time and not self.hangs:
            raise SpentError
        return outcome

    def all_at_once(self, every: list[Candidate]) -> Runs:
        """Try all of `every`; if that makes the test pass, find the smallest sufficient part."""
        outcome = yield from self.run(every)
        sent = [each for each in every if each.experiment not in outcome.unsent]
        if outcome.passed:
            if sent and (len(sent) == len(every) or (yield from self.enough(sent))):
                yield from self.confirm((yield from self.smallest(sent, [])))
        elif outcome.failure in self.usual:
            self.conclusion.cleared = tuple(sent)
        elif any(each.hidden for each in every) and not all(each.hidden for each in every):
            yield from self.all_at_once([each for each in every if not each.hidden])
        elif len(sent) == len(every) and outcome.failure and not self.hurried:  # which words vary is not known
            yield from self.follow(every, outcome)

    def confirm(self, smallest: list[Candidate]) -> Runs:
        """Confirm `smallest`, which is sufficient, unless the test also passes in a control."""
        is_replay = any(type(each.experiment) is Replay for each in smallest)
        if is_replay or self.hurried:
            control = yield from self.run(smallest if is_replay else (), control=True)
            if control.passed and not control.imported.issuperset(each.experiment for each in smallest):
                self.conclusion.needless = tuple(smallest)
                return
            if self.hurried and control.passed:
                control = yield from self.run(control=True)  # loading the value sets it
            hangs = self.hangs and not control.in_time
            own = control.failure[:1] or [""]  # not all children report
            if self.hurried and not hangs and not self.usual.own.issuperset(own):
                return
        self.conclusion.confirmed = tuple(smallest)

    def smallest(self, some: list[Candidate], beside: list[Candidate]) -> Generator[Attempt, Outcome, list[Candidate]]:
        """Return the smallest part of `some` that suffices together with `beside`; all of it if no run is left."""
        if len(some) < 2:
            return some
        middle = len(some) // 2 if beside or len(some) > MOST_RUNS else 1  # the first is the likeliest
        halves = some[:middle], some[middle:]
        for half in halves:
            if (yield from self.enough([*half, *beside])):
                return (yield from self.smallest(half, beside))
        first = yield from self.smallest(halves[0], [*halves[1], *beside])
        return [*first, *(yield from self.smallest(halves[1], [*first, *beside]))]

    def enough(self, these: list[Candidate]) -> Generator[Attempt, Outcome, bool]:
        """Return whether the test passes with `these`; False if no run is left."""
        try:
            outcome = yield from self.run(these)
        except SpentError:
            return False
        if not outcome.unsent and outcome.failure in self.usual:
            self.conclusion.cleared = (*self.conclusion.cleared, *these)
        return outcome.passed and not outcome.unsent

    def copy(self, findings: Sequence[Finding]) -> Runs:
        """Confirm `findings` if the test fails in the usual way under fork with copies, and passes there without."""
        only = Candidate(Copies(), tuple(findings))
        outcome = yield from self.run([only])
        if outcome.unsent:
            return
        if outcome.passed:
            self.conclusion.cleared = (*self.conclusion.cleared, only)
        elif outcome.failure in self.usual and (yield from self.run([only], control=True)).passed:
            self.conclusion.confirmed = (only,)

    def follow(self, every: list[Candidate], outcome: Outcome) -> Runs:
        """Handle a different failure with `every` removed: the first cause hid a second one."""
        if len(every) > 1:
            alone = yield from self.run(every[:1])
            if alone.passed and not alone.unsent:
                return (yield from self.confirm(every[:1]))
            if alone.failure in self.usual or every[0].hidden:  # what breaks the test hides what is behind it
                return (yield from self.all_at_once(every[1:]))
            if alone.passed or not alone.failure:
                return None
            every, outcome = every[:1], alone
        if any(each.code in _NEVER_CLEARED for each in every[0].findings):
            return None  # what the stand-in lacks is no second cause
        self.conclusion.necessary, self.conclusion.met = every[0], outcome.met
        more = [each for each in candidates(outcome.met) if each.experiment != every[0].experiment]
        if more and (yield from self.enough([*every, *more])):
            yield from self.confirm((yield from self.smallest([*every, *more], [])))
        return None


def search(
    found: Sequence[Candidate],
    usual: Failures,
    *,
    not_pickled: bool = False,
    hangs: bool = False,
    hurried: bool = False,
    sufficient: Collection[Experiment] = (),
    copied: Sequence[Finding] = (),
) -> Generator[Attempt, Outcome, Conclusion]:
    """Yield the runs to make for a leg with the failures `usual`, and return the conclusion.

    `not_pickled` says that a start failed in pickling. Such a failure is never flaky, so the unchanged run is skipped.
    It is also skipped if `hurried`: a confirmation then needs a control that fails in the usual way, or is not over in
    time where the leg `hangs`.
    `sufficient` holds the experiments that are the smallest sufficient set of the test under another method, `copied`
    the findings that a run with `Copies` can confirm.
    """
    state = _Search(usual, hurried and not not_pickled, hangs)
    try:
        if not (not_pickled or hurried):
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
        there = [each for each in found if each.experiment in sufficient]
        if there and len(there) == len(sufficient) and (yield from state.enough(there)):
            yield from state.confirm(there)
        elif state.hurried and found and (yield from state.enough(list(found[:1]))):  # the likeliest, alone
            yield from state.confirm(list(found[:1]))
        elif len(found) > state.hurried:
            yield from state.all_at_once(list(found))
        if copied and not state.conclusion.confirmed:
            yield from state.copy(copied)
    except SpentError:
        pass
    return state.conclusion


def failure(phase: str, message: str) -> str:
    """Return a failure in a form that is equal in every run: without addresses, pids and temporary paths."""
    line = next((line for line in message.splitlines() if line.strip()), "")
    for pattern, stands_for in _VARYING:
        line = pattern.sub(stands_for, line)
    return f"{phase}: {line[:300]}"


_VARYING: Final = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x"),
    (re.compile(r"\b(pid|parent|id|fd)(=| )'?\d+'?"), r"\1\2#"),
    (re.compile(r"\b(?:ForkServer|Fork|Spawn)?(\w*(?:Process|PoolWorker))-[\d:]+"), r"\1-#"),
    (re.compile(r"pytest-of-[^/\s]+/pytest-\d+"), "pytest"),
    (re.compile(r"/tmp[\w-]{6,}"), "/tmp"),
)


def settle(findings: Iterable[Finding], said: Conclusion) -> tuple[Finding, ...]:
    """Return `findings` updated by the conclusion: confirmed ones first, cleared ones last, otherwise in order.

    A confirmed note becomes a cause, and a cleared cause a note. Causes that are only sufficient together become one
    finding. A hang or a crash follows from a confirmed cause: without that, the test passes.
    """
    findings = list(findings)
    if said.flaky:
        return tuple(each for each in findings if each.code in STRUCTURAL)
    confirmed = [each for candidate in said.confirmed for each in candidate.findings]
    settled = [replace(each, confirmed=True, level="cause") for each in confirmed]
    if len(said.confirmed) > 1 or (len(settled) > 1 and type(said.confirmed[0].experiment) is Copies):
        settled = [_together(settled)]
    cleared = {each for candidate in said.cleared for each in candidate.findings if _may_be_cleared(each)}
    needless = {each for candidate in said.needless for each in candidate.findings}
    necessary = said.necessary.findings if said.necessary is not None else ()
    known = {each.key for each in findings}
    covered = {path for each in settled for path in each.together}
    more, met = ([each for each in some if each.key not in known] for some in (said.more, said.met))
    rest = []
    for each in (*more, *findings, *met):
        if each in confirmed or (each.confirmed is None and each.path in covered):
            continue
        if each in cleared:
            each = replace(each, confirmed=False, level="note")
        elif each in needless:
            each = replace(each, level="note", evidence=(*each.evidence, _NEEDLESS))
        elif each in necessary and met:
            behind = f"with that out of the way: {met[0].code} {met[0].name}: {met[0].message}"
            each = replace(each, evidence=(*each.evidence, behind))
        elif settled and each.code in FOLLOWS and not each.because_of:
            each = replace(each, because_of=settled[0].reference)
        rest.append(each)
    return ranked([*settled, *rest])


def _may_be_cleared(each: Finding) -> bool:
    """Return whether a run without it clears it: a tool may have done more than what was replayed."""
    return each.code not in _NEVER_CLEARED and not (each.code == "SM303" and each.together)


_NEEDLESS: Final = "the test also passes if the child imports the module early and keeps its own value"


def _together(these: Sequence[Finding]) -> Finding:
    """Merge causes that are only sufficient together."""
    first = these[0]
    messages = (e.message if e.code == first.code else f"{e.code} {e.name}: {e.message}" for e in these)
    paths = (path for each in these for path in (each.together or (each.path or each.name,)))
    return replace(
        first,
        message="; ".join(dict.fromkeys(each.rstrip(".") for each in messages)),
        evidence=tuple(dict.fromkeys(line for each in these for line in each.evidence)),
        fix="; ".join(dict.fromkeys(each.fix for each in these if each.fix)),
        facts=tuple(fact for each in these for fact in each.facts),
        together=tuple(dict.fromkeys(paths)),
    )


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return `findings` with the confirmed ones first and the cleared ones last."""
    return tuple(sorted(findings, key=lambda each: 1 if each.confirmed is None else 0 if each.confirmed else 2))
