"""The section at the end of a session in the terminal: verdicts, causes, vacuous legs."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..launches import foreign
from ..model.finding import WIDTH, relative
from ..model.leg_result import OUTCOMES, LegResult
from ..model.methods import base, rank
from ..model.wire import Fields
from . import groups, verdicts
from .text import Line, count, cut, line, listed, styled, wrap

_CAUSES, _NOTES, _LISTED = 40, 10, 6
_SCREEN: Final = 45
"""A summary with more lines is printed densely, unless ``-v`` is given."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The legs of a session, and how to print their summary."""

    results: Sequence[LegResult]
    """In order."""
    root: str
    fixed: Sequence[Fields] = ()
    """Processes of unmarked tests with a context of their own: `LegResult.foreign`, with the test's node id."""
    width: int = WIDTH

    def lines(self, *, verbose: bool) -> list[Line]:
        """Return the whole section; with less for each cause if there are many, and not `verbose`."""
        full = self._lines(dense=False, verbose=verbose)
        return full if verbose or len(full) <= _SCREEN else self._lines(dense=True, verbose=False)

    def _lines(self, *, dense: bool, verbose: bool) -> list[Line]:
        blocks = []
        if self.results:
            verdict = verdict_line(self.results)
            blocks += [[verdict, _failures(self.results)] if dense else [*_table(self.results), verdict]]
        unexplained = groups.unexplained(self.results)
        without = {leg.nodeid for legs in unexplained for leg in legs}
        blocks += self._causes(without, dense=dense, verbose=verbose)
        blocks += [self._unexplained(legs, dense=dense, verbose=verbose) for legs in unexplained]
        blocks += [self._flaky(verbose=verbose), *self._vacuous(dense=dense, verbose=verbose)]
        blocks += [self._fixed(dense=dense, verbose=verbose)]
        troubles = dict.fromkeys(trouble for leg in self.results for trouble in leg.troubles)
        blocks += [[line(each) for trouble in troubles for each in self._wrap(trouble, first="")]]
        filled = [each for each in blocks if each]
        if dense:
            filled.append([line("-v: every test of a cause, and the whole of its fix", "quiet")])
            return [each for block in filled for each in block]
        return [each for number, block in enumerate(filled) for each in ([line()] * bool(number) + block)]

    def _wrap(self, text: str, *, indent: str = "  ", first: str | None = None) -> list[str]:
        return wrap(relative(text, self.root), indent=indent, first=first, width=self.width)

    def _fix(self, fix: str) -> list[Line]:
        return styled(self._wrap(f"fix: {fix}", indent="       ", first="  "), "fix:", "fix")

    # -- the causes --------------------------------------------------------------------------------------------------

    def _causes(self, without: Container[str], *, dense: bool, verbose: bool) -> list[list[Line]]:
        """Return a block per cause and per note, except the notes of legs `without` a cause."""
        blocks = []
        every = groups.nested(groups.group(self.results))
        for word, limit in (("cause", _CAUSES), ("note", _NOTES)):
            found = [each for each in every if each.finding.level == word]
            if word == "note":
                found = [replace(each, legs=[leg for leg in each.legs if leg.nodeid not in without]) for each in found]
                found = [each for each in found if each.legs]
            shown = found if verbose else found[:limit]
            blocks += [self._cause(each, dense=dense, verbose=verbose) for each in shown]
            if len(shown) < len(found):
                legs = {leg.nodeid for each in found[len(shown) :] for leg in each.legs}
                more = count(len(found) - len(shown), f"more {word}")
                blocks.append([line(f"and {more} of {count(len(legs), 'leg')} (-v)")])
        return blocks

    def _cause(self, each: groups.Group, *, dense: bool, verbose: bool) -> list[Line]:
        finding, told = each.finding.masked(), each.told
        name = f"{finding.code} {finding.name}"
        kind = "note" if each.predicted or finding.level == "note" else "cause"
        if each.predicted:
            head = f"{name}, predicted for spawn and forkserver: {count(len(each.tests), 'test')}"
        else:
            mine = set(each.tests)
            head = f"{name}, {verdict_line([leg for leg in self.results if leg.test in mine]).text}"
        if finding.confirmed is not None:
            together = " together" if len(finding.together) > 1 else ""
            some, legs = each.confirmed
            most = f" in {some} of {legs} legs" if some < legs else ""
            head += f" (confirmed{together}{most})" if finding.confirmed else " (cleared by an experiment)"
        lines = styled(wrap(head, first="", width=self.width), name, kind)
        lines += [line(text) for text in self._place(told)]
        if dense:
            fix = cut(relative(f"  fix: {finding.fix}", self.root), self.width)
            return [*lines[:3], *styled([fix] if finding.fix else [], "fix:", "fix")]
        for one in told.findings:
            lines += [line(text) for text in self._wrap(one.masked().message)]
        for fix in dict.fromkeys(one.masked().fix for one in told.findings if one.fix):
            lines += self._fix(fix)
        for after in each.consequences:
            text = f"and so: {after.finding.code} {after.finding.name}: {after.finding.message}"
            lines += [line(text) for text in self._wrap(text, indent="    ", first="  ")]
        return lines + [line(text) for text in self._first(each.legs, verbose=verbose)]

    def _place(self, told: groups.Told) -> list[str]:
        files = [f"{relative(file, self.root)}:{', '.join(map(str, lines))}" for file, lines in told.places()]
        text = "; ".join(files)
        if told.paths:
            text = f"{text}: {told.paths}" if text else told.paths
        return wrap(text, width=self.width)

    def _first(self, legs: Sequence[LegResult], *, verbose: bool) -> list[str]:
        if verbose:
            return self._listed(legs, verbose=True)
        more = f" and {len(legs) - 1} more (-v)" if len(legs) > 1 else ""
        text = f"  first: {legs[0].nodeid}{more}"
        return [text] if len(text) <= self.width or not more else [f"  first: {legs[0].nodeid}", f"   {more}"]

    def _unexplained(self, legs: Sequence[LegResult], *, dense: bool, verbose: bool) -> list[Line]:
        """Return the block on legs without a cause, and what was noted about them."""
        methods = sorted({leg.method for leg in legs}, key=rank)
        tests = count(len({leg.test for leg in legs}), "test")
        head = f"no cause found: {count(len(legs), 'leg')} of {tests} ({', '.join(methods)})"
        lines = [*self._wrap(legs[0].message or ""), *self._first(legs, verbose=verbose)]
        notes = groups.nested([each for each in groups.group(legs) if not each.predicted])
        for each in notes if verbose else notes[:_LISTED]:
            finding = each.finding.masked()
            said = "cleared by an experiment" if finding.confirmed is False else "noted, not known to matter"
            text = f"{said}: {finding.code} {finding.name}, {' '.join(map(str.strip, self._place(each.told)))}"
            lines += self._wrap(text if dense else f"{text}: {finding.message}", indent="    ", first="  ")
        return [*styled([head], "no cause found", "cause"), *map(line, lines)]

    # -- the rest ----------------------------------------------------------------------------------------------------

    def _flaky(self, *, verbose: bool) -> list[Line]:
        flaky = [leg for leg in self.results if leg.flaky]
        if not flaky:
            return []
        head = f"flaky: {count(len(flaky), 'leg')} failed and passed when run again, so no cause is named"
        return [*styled([head], "flaky", "note"), *map(line, self._listed(flaky, verbose=verbose))]

    def _vacuous(self, *, dense: bool, verbose: bool) -> list[list[Line]]:
        every = groups.group_vacuous(self.results)
        if dense and every:
            tests = list(dict.fromkeys(leg.test for each in every for leg in each.legs))
            more = f" and {len(tests) - 3} more" if len(tests) > 3 else ""
            codes = ", ".join(dict.fromkeys(f"{each.finding.code} {each.finding.name}" for each in every))
            text = f"{codes}: {count(len(tests), 'test')} started nothing with a method: {', '.join(tests[:3])}{more}"
            return [styled(self._wrap(text, first=""), codes, "note")]
        return [self._vacuous_block(each, verbose=verbose) for each in every]

    def _vacuous_block(self, each: groups.Group, *, verbose: bool) -> list[Line]:
        finding = each.finding
        name = f"{finding.code} {finding.name}"
        their = "its" if len(each.legs) == 1 else "their"
        head = f"{name}: {count(len(each.legs), 'leg')} passed without a process of {their} method"
        lines = styled(self._wrap(head, first=""), name, "note")
        lines += map(line, self._wrap(finding.message))
        for evidence in finding.evidence:
            lines += map(line, self._wrap(evidence, indent="      ", first="    "))
        lines += self._fix(finding.fix)
        return [*lines, *map(line, self._listed(each.legs, verbose=verbose))]

    def _listed(self, legs: Sequence[LegResult], *, verbose: bool) -> list[str]:
        tests = verdicts.by_test(legs)
        texts = [f"  {test} ({', '.join(sorted(by_method, key=rank))})" for test, by_method in tests.items()]
        if verbose or len(texts) <= _LISTED:
            return texts
        return [*texts[:_LISTED], f"  and {len(texts) - _LISTED} more (-v)"]

    def _fixed(self, *, dense: bool, verbose: bool) -> list[Line]:
        """Return the block on processes started outside the legs' start methods: by kind, each place once."""
        every = [({"test": leg.test, **each}) for leg in self.results for each in leg.foreign] + [*self.fixed]
        if not every:
            return []
        reused = any(foreign.is_reused(each["kind"]) for each in every)
        total = sum(each["count"] for each in every if not foreign.is_reused(each["kind"]))
        tests = count(len({each["test"] for each in every}), "test")
        parts = [f"{count(total, 'process')} of {tests}"] if total else []
        parts += ["tasks given to loky"] if reused else []
        lines = styled(self._wrap(f"not affected by the start method: {' and '.join(parts)}", first=""), "not", "")
        kinds: dict[tuple[str, str], dict[str, int]] = {}
        for each in every:
            place = f"{each['file']}:{each['line']}" if each["file"] else "a place that could not be found"
            places = kinds.setdefault((each["kind"], each["method"]), {})
            places[place] = places.get(place, 0) + (0 if foreign.is_reused(each["kind"]) else each["count"])
        fixes = [foreign.fix(kind) for kind, _ in sorted(kinds)]
        for number, ((kind, method), places) in enumerate(sorted(kinds.items()) if not dense else ()):
            lines += map(line, self._places(kind, method, places, verbose=verbose))
            if fixes[number] not in fixes[number + 1 :]:
                lines += self._fix(fixes[number])
        if dense:
            return lines
        forks = self._never_leaving_fork()
        if forks:
            shown = forks if verbose else forks[:_LISTED]
            more = f" and {len(forks) - len(shown)} more (-v)" if len(shown) < len(forks) else ""
            text = f"never leave fork: {', '.join(shown)}{more}"
            lines += map(line, self._wrap(text, indent="    ", first="  "))
        return lines

    def _never_leaving_fork(self) -> list[str]:
        """Return the tests, unmarked ones included, whose processes are all forked whatever the start method.

        The fork of another package, ``multiprocess:fork``, may be no more than its default on this platform.
        """
        tests: dict[str, list[bool]] = {}
        for each in self.fixed:
            tests.setdefault(each["test"], []).append(_is_fixed_fork(each))
        for leg in self.results:
            if base(leg.method) != "fork" and leg.outcome != "skipped":
                own = any(base(each["method"] or "") != "fork" for each in (*leg.launches, *leg.tasks))
                tests.setdefault(leg.test, []).append(
                    bool(leg.foreign) and not own and all(map(_is_fixed_fork, leg.foreign))
                )
        return sorted(test for test, only in tests.items() if all(only))

    def _places(self, kind: str, method: str, places: Mapping[str, int], *, verbose: bool) -> list[str]:
        every = sorted(places.items(), key=lambda item: (-item[1], item[0]))
        shown = every if verbose else every[:_LISTED]
        lines = []
        for place, number in shown:
            lines += self._wrap(f"{foreign.told(kind, method, number)} at {place}", indent="    ", first="  ")
        return lines + ([f"  and {len(every) - len(shown)} more places (-v)"] if len(shown) < len(every) else [])


def _is_fixed_fork(each: Fields) -> bool:
    """Return whether code asked for fork; another package's may be no more than its default on this platform."""
    return base(each["method"]) == "fork" and (":" not in each["method"] or each["kind"] == "context")


def verdict_line(results: Sequence[LegResult]) -> Line:
    """Return the number of tests, and how many have which verdict."""
    tests = verdicts.by_test(results)
    said = [verdicts.verdict(legs) for legs in tests.values()]
    everywhere = len({leg.method for leg in results}) > 1
    words = [(word, said.count(word)) for word in verdicts.verdict_order(said)]
    if len(words) == 1 and words[0][0].startswith(("passes", "fails", "needs", "xfails")):
        text = verdicts.in_words(words[0][0], len(tests), everywhere=everywhere).partition(" ")[2]
        spans = [(f"{count(len(tests), 'test')} ", ""), (text, verdicts.style(words[0][0]))]
    else:
        spans = [(f"{count(len(tests), 'test')}: ", "")]
        for number, (word, found) in enumerate(words):
            spans += [(", ", "")] * bool(number)
            spans.append((verdicts.in_words(word, found, everywhere=everywhere), verdicts.style(word)))
    still = sum(map(verdicts.needs_fork, tests.values()))
    if still > said.count("needs-fork"):
        spans.append((f" ({still} still {'needs' if still == 1 else 'need'} fork)", ""))
    return Line(tuple(spans))


def quiet_line(results: Sequence[LegResult]) -> Line:
    """Return the only line at ``-q``: the verdicts, and the codes with the number of their tests."""
    tests: dict[str, set[str]] = {}
    for each in groups.group(results):
        if each.finding.level == "cause":
            tests.setdefault(each.finding.code, set()).update(each.tests)
    codes = ", ".join(f"{code} x{len(found)}" for code, found in sorted(tests.items()))
    spans = [("start methods: ", ""), *verdict_line(results).spans]
    return Line((*spans, (f" [{codes}]", "")) if codes else tuple(spans))


def _counts(results: Sequence[LegResult]) -> dict[str, dict[str, int]]:
    """Count the legs by method and outcome; ``vacuous`` and ``flaky`` legs count as nothing else."""
    counts: dict[str, dict[str, int]] = {}
    for leg in results:
        word = "flaky" if leg.flaky else "vacuous" if leg.vacuous is not None else leg.outcome
        row = counts.setdefault(leg.method, {})
        row[word] = row.get(word, 0) + 1
    return {method: counts[method] for method in sorted(counts, key=rank)}


_STYLES: Final = {"passed": "good", "failed": "bad", "error": "bad"}


def _table(results: Sequence[LegResult]) -> list[Line]:
    counts = _counts(results)
    columns = [o for o in (*OUTCOMES, "vacuous", "flaky") if o == "passed" or any(o in row for row in counts.values())]
    width = max([10, *map(len, counts)])
    spans = [(" " * width, "")]
    for word in columns:
        spans += [(" " * (9 - len(word)), ""), (word, _STYLES.get(word, "warn"))]
    rows = [
        line(f"{method:{width}}" + "".join(f"{row.get(c, 0) or '-':>9}" for c in columns))
        for method, row in counts.items()
    ]
    return [Line(tuple(spans)), *rows]


def _failures(results: Sequence[LegResult]) -> Line:
    """Return the table in one line: the number of failed legs by method."""
    counts = _counts(results)
    failed = {m: sum(row.get(word, 0) for word in verdicts.FAILED) for m, row in counts.items()}
    return line(f"failing legs: {listed(f'{number} under {method}' for method, number in failed.items())}")
