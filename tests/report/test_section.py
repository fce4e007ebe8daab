"""The section below a failing leg in the terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import finding
from pytest_startmethod.model.finding import source_fact
from pytest_startmethod.model.place import Place
from pytest_startmethod.report import groups, section


def text(told, root="", method="spawn", **options):
    return [each.text for each in section.lines(told, root=root, method=method, **options)]


@pytest.fixture
def service(tmp_path):
    file = tmp_path / "service.py"
    file.write_text(
        "import threading\n\nclass Service:\n    def __init__(self):\n        self._lock = threading.Lock()\n"
    )
    return file


def of(file, line, path, **values):
    return replace(finding(path=path, **values), file=str(file), line=line)


def test_the_source_line_is_shown_with_a_mark_under_the_object(service, tmp_path):
    """The line is not repeated as evidence, and the last line says where to read more."""
    place = Place(str(service), 5)
    set_here = source_fact("parent", "set", place)
    values = {"evidence": (str(set_here), "and a remark"), "facts": (set_here,), "message": "It is a lock."}
    lock = of(service, 5, "target.__self__._lock", code="SM103", name="unpicklable-object", **values)
    (told,) = groups.told([lock])
    assert text(told, str(tmp_path)) == [
        "  service.py:5",
        "  5 | self._lock = threading.Lock()",
        "    |      ^^^^^ target.__self__._lock",
        "  It is a lock.",
        "  (under fork: the child is a copy of the parent, and nothing is pickled)",
        "  and a remark",
        "  fix: move it",
        "  more: python -m pytest_startmethod explain SM103",
    ]


def test_without_the_file_the_path_stands_next_to_the_place():
    (told,) = groups.told([finding()])
    assert text(told)[0] == "  /project/tests/test_a.py:7: target"


def test_a_finding_that_fork_has_too_is_not_explained_by_it():
    """A payload that does not pickle fails under every method, and a leg under fork does not mention fork."""
    (told,) = groups.told([finding(every_method=True)])
    assert text(told)[2:4] == [
        "  (tasks of a pool or executor and messages are pickled under every start",
        "    method, fork included)",
    ]
    (told,) = groups.told([finding()])
    assert "under fork" not in " ".join(text(told, method="fork"))


@pytest.mark.parametrize(
    ("source", "path", "marked"),
    [
        ("process = Process(target=lambda: child.send(X))", "target", "lambda"),
        ("def halved(name):", "target", "halved"),
        ("async def halved(name):", "target", "halved"),
        ("class Offer:", "args[0][0].__class__", "Offer"),
        ("self._lock = threading.Lock()", "target.__self__._lock", "_lock"),
        ("return amount * settings.RATES[settings.CURRENCY]", "shop.settings.RATES", "RATES"),
        ("return os.environ['TOKEN']  # TOKEN", "os.environ['TOKEN']", "TOKEN"),
        ("process = Process(target=work, args=(1,))", "target", "work"),
        ("queue.put(('TOKEN is', value", "os.environ['TOKEN']", None),
        ("foo(bar)", "target", None),
        ("x = 1", "", None),
    ],
)
def test_the_mark_is_under_what_the_path_names(source, path, marked):
    """Names in strings and comments do not count, and incomplete statements are parsed as far as possible."""
    span = section.mark(source, path)
    assert (None if span is None else source[slice(*span)]) == marked


def test_a_line_that_only_fails_defines_nothing(service, tmp_path):
    """If a module's import fails, the object is defined elsewhere: the path is shown next to the location."""
    (told,) = groups.told([of(service, 3, "target", code="SM201", name="module-not-importable")])
    assert text(told, str(tmp_path))[:2] == ["  service.py:3: target", "  3 | class Service:"]


def test_titles_say_what_an_experiment_said():
    plain, sure = finding(), finding(confirmed=True)
    assert section.title(groups.Told([plain]), "spawn") == "SM101 local-function"
    assert section.title(groups.Told([sure]), "spawn") == "SM101 local-function (confirmed under spawn)"
    cleared = groups.Told([finding(confirmed=False)])
    assert section.title(cleared, "spawn") == "SM101 local-function (cleared by an experiment)"
    assert section.named([groups.Told([plain]), groups.Told([sure])]) == (
        "SM101 local-function, SM101 local-function (confirmed)"
    )


def test_a_consequence_follows_its_cause():
    hang = finding("SM403", "hang", "", message="It had not finished.", because_of="SM101 target")
    (told,) = groups.told([finding(), hang])
    assert text(told)[-2] == "  and so: SM403 hang: It had not finished."


def test_a_long_line_of_source_is_cut(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("value = " + "f(" * 60 + "target" + ")" * 60 + "\n")
    lines = [each.text for each in section.excerpt(of(file, 1, "value"), 80)]
    assert lines[0].endswith("...")
    assert max(map(len, lines)) <= 80
