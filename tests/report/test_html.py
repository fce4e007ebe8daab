"""The HTML report: its content, and its behaviour in a browser."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from builders import finding, leg, model
from pytest_startmethod.model.codes import CAUSES
from pytest_startmethod.model.finding import Finding, source_fact, values
from pytest_startmethod.model.place import Place
from pytest_startmethod.report import document
from pytest_startmethod.report.links import Links

pytest.importorskip("jinja2", reason="Jinja2 is not installed: the extra html")

from pytest_startmethod.report import html

NASTY = "</script><img src=x onerror=alert(1)> `a|b` & \"q\" 'q' {{ 7919 * 7907 }} <!--"


class Page(HTMLParser):
    """Checks that every element has its end tag, and records what would be loaded."""

    VOID = frozenset({"meta", "link", "input", "br", "hr", "img"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.loads, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        self.loads += [v for k, v in attrs if k in ("src", "href") and not v.startswith(("#", "data:,"))]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page(text):
    return Page(text)


@pytest.fixture
def source(tmp_path):
    lines = ["import threading", "", "class Cache:", '    """<b>A cache."""', "    def __init__(self):"]
    (tmp_path / "cache.py").write_text(
        "\n".join([*lines, "        self.lock = threading.Lock()", *[""] * 6, "x.start()"])
    )
    return tmp_path


def test_page_is_whole_and_loads_nothing(source):
    """The page is well-formed, ids are unique, and nothing is loaded from elsewhere."""
    text = html.text(
        model(
            leg("fork"),
            leg("spawn", "failed", findings=(finding(message=NASTY, evidence=(NASTY,), fix=NASTY),), message=NASTY),
            leg("fork", test=f"tests/t.py::test_x[{NASTY}]", vacuous=finding("SM501", "vacuous", level="note")),
            root=source,
        )
    )
    read = page(text)
    assert not [each for each in read.loads if not each.startswith(("https://pytest-startmethod.", "vscode://"))]
    assert not any(tag in ("img", "iframe", "object") or "src" in values for tag, values in read.tags)
    assert len(read.ids) == len(set(read.ids))
    assert "default-src 'none'" in text
    assert sum(tag == "script" for tag, _ in read.tags) == 1
    assert "{{ 7919 * 7907 }}" in text
    assert str(7919 * 7907) not in text


def causes(built):
    """Return the text shown for each cause, by section."""
    return [each for _, codes in html.view(built)["sections"] for code in codes for each in code["causes"]]


def sides(entry):
    return {each["title"].partition(" (")[0]: each for each in entry["sides"]}


def test_finding_has_parent_and_child_side_by_side(source):
    """The start and the object are shown for the parent, the outcome for the child; the relevant lines are marked."""
    launch = {
        "method": "spawn",
        "target": "pkg.work",
        "args": ["<cache.Cache>"],
        "file": str(source / "cache.py"),
        "line": 13,
        "thread": None,
        "fixture": "server",
        "pid": 1,
        "exit_code": None,
        "error": "TypeError: cannot pickle '_thread.lock' object",
        "worker": False,
    }
    defined = source_fact("parent", "defined", Place(str(source / "cache.py"), 3))
    broken = Finding(
        "SM103",
        "unpicklable-object",
        "cause",
        "args[0].lock",
        str(source / "cache.py"),
        6,
        "`Cache.lock` is a lock",
        evidence=(str(defined), "the child would need one of its own"),
        fix="make it in the child",
        facts=(defined,),
    )
    built = model(leg("fork"), leg("spawn", "failed", findings=(broken,), launches=(launch,)), root=source)
    (entry,) = causes(built)
    shown = sides(entry)
    parent, child, neither = shown["In the parent"], shown["In the child"], shown[""]
    assert [(each["label"], each["file"], each["line"]) for each in parent["places"]] == [
        ("the process is started here", "cache.py", 13),
        ("the line in question; line 3: defined here", "cache.py", 6),
    ]
    assert [number for number, meant, _ in parent["places"][1]["lines"] if meant] == [3, 6]
    assert parent["facts"] == ["runs pkg.work(<cache.Cache>)", "started in the fixture 'server'"]
    assert child["facts"] == ["no child: start() raised TypeError: cannot pickle '_thread.lock' object"]
    assert neither["facts"] == ["the child would need one of its own"]
    assert entry["passed_under"] == "fork"
    text = html.text(built)
    assert '<span class="k">class</span>' in text  # highlighted by Pygments
    assert "&lt;b&gt;A cache." in text


def test_values_of_state_stand_on_their_sides(source):
    """What is read is shown for the child, what set it for the parent, and nothing is shown twice."""
    read, made = (
        source_fact(side, label, Place(f"{source}/cache.py", line), about)
        for side, label, line, about in (
            ("child", "read", 1, ""),
            ("parent", "set", 6, "monkeypatch"),
        )
    )
    facts = (*values("s.now", "function f (t.py:15)", "function now (s.py:3)"), read, made)
    broken = Finding(
        "SM303",
        "patch-lost",
        "cause",
        "s.now",
        f"{source}/cache.py",
        1,
        "differs",
        (str(read), str(made)),
        "fix",
        None,
        facts,
    )
    built = model(leg("spawn", "failed", findings=(broken,), message="assert 1 == 2"), root=source)
    (entry,) = causes(built)
    shown = sides(entry)
    assert set(shown) == {"In the parent", "In the child"}
    parent, child = shown["In the parent"], shown["In the child"]
    assert parent["values"] == [("s.now", "function f (t.py:15)")]
    assert child["values"] == [("s.now", "function now (s.py:3)")]
    assert [(each["label"], each["line"]) for each in parent["places"]] == [("set by monkeypatch here", 6)]
    assert [(each["label"], each["line"]) for each in child["places"]] == [("read here", 1)]
    assert parent["facts"] == child["facts"] == []  # the source is shown instead


def test_causes_stand_under_their_code_with_what_it_is(source):
    """Parts of one object are one cause, and a consequence is nested below it."""
    lock, log = (
        finding("SM103", "unpicklable-object", "a._lock", 3),
        finding("SM103", "unpicklable-object", "a._log", 4),
    )
    hang = finding("SM403", "hang", "", 9, because_of="SM103 a._lock")
    built = model(leg("spawn", "failed", findings=(lock, log, hang)), root=source)
    ((_, (code,)), _) = html.view(built)["sections"]
    assert (code["code"], code["what"]) == ("SM103", CAUSES["SM103"].what)
    (cause,) = code["causes"]
    assert [(each["code"], each["path"]) for each in cause["parts"]] == [("SM103", "a._log"), ("SM403", "")]
    text = html.text(built)
    page(text)
    assert "and so: SM403 hang" in text
    assert 'href="https://pytest-startmethod.readthedocs.io/en/latest/causes/SM103/"' in text


def test_headings_are_in_order(source):
    """No heading level is skipped, so that screen readers can navigate."""
    built = model(leg("fork"), leg("spawn", "failed", findings=(finding(),)), leg("fork", test="b"), root=source)
    levels = [int(tag[1]) for tag, _ in page(html.text(built)).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_head_says_what_was_run():
    """The head shows project, command, time and versions."""
    built = {**model(leg()), "command": ["pytest", "-x"], "started": "2026-01-31T12:00:00+0100", "duration": 1.25}
    text = " ".join(html.text(built).split())
    assert "<h1>project <span>under fork, spawn</span></h1>" in text
    assert "<code>pytest -x</code>" in text
    assert "2026-01-31 12:00</time>, 1.2 s, Python 3.12.1 on linux (default: <code>fork</code>)" in text


def test_places_lead_to_the_commit_or_to_an_editor():
    built = model(leg("spawn", "failed", findings=(finding(),)))
    assert 'href="vscode://file/project/tests/test_a.py:7"' in html.text(built)
    github = {"GITHUB_REPOSITORY": "me/proj", "GITHUB_SHA": "abc", "GITHUB_WORKSPACE": "/project"}
    text = html.text(built, Links.of(github, "/project"))
    assert 'href="https://github.com/me/proj/blob/abc/tests/test_a.py#L7"' in text


def test_a_failure_has_its_traceback():
    """The traceback is pytest's, escaped."""
    failed = leg("spawn", "failed")
    session = document.Session("/project", "3.12.1", "linux", "fork", ("spawn",), "1")
    text = html.text(document.build([failed], session, failures={failed.nodeid: "E   <lambda>"}))
    assert '<pre class="failure" tabindex="0">E   &lt;lambda&gt;</pre>' in text


def test_source_that_is_gone_leaves_its_place(tmp_path):
    """If the source file is gone, only its location is shown."""
    text = html.text(model(leg("spawn", "failed", findings=(finding(),)), root=tmp_path))
    assert "tests/test_a.py:7" in text
    assert '<div class="src"' not in text


def test_report_of_nothing_says_what_to_do():
    """An empty report is a valid page with instructions."""
    text = html.text(model())
    page(text)
    assert "No test ran under a start method of its own." in text


def test_interrupted_session_is_named():
    """The page says that the session was interrupted, since the report is incomplete."""
    assert "The session did not come to its end." in html.text(model(leg("fork"), status=2))
    assert "The session did not come to its end." not in html.text(model(leg("fork"), status=1))


def test_many_legs_of_one_cause_are_cut():
    """200 legs are listed, the others counted."""
    broken = finding()
    text = html.text(model(*(leg(test=f"t.py::t[{n}]", outcome="failed", findings=(broken,)) for n in range(250))))
    assert "and 50 more, in the JSON report" in text
    assert text.count('<details class="cause cause"') == 1


def test_without_jinja_the_option_is_an_error_at_configure(session):
    """The error names the command that installs it."""
    session.file(no_jinja="import sys; sys.modules['jinja2'] = None", test_a="def test_a(): pass").plugin("no_jinja")
    outcome = session.run("--start-methods-report=r.html")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert [line for line in outcome.lines if line.strip()] == [
        "ERROR: --start-methods-report: 'r.html' needs Jinja2, which is not installed: "
        "pip install 'pytest-startmethod[html]'"
    ]
    assert session.run("--start-methods-report=r.md").status == 0


# -- in a browser ------------------------------------------------------------------------------------------------------

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

SUITE = """
    import multiprocessing
    import pytest

    pytestmark = pytest.mark.startmethods("fork", "spawn")

    def work(): pass

    def run(target):
        process = multiprocessing.Process(target=target)
        process.start()
        process.join()

    def test_lambda(): run(lambda: None)
    def test_fine(): run(work)
    def test_nothing(): pass
"""


@pytest.fixture
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium with its driver on this machine")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


def size(browser, width, theme="light"):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": theme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def test_in_a_browser(session, browser):
    """Filters select tests, findings open, nothing is wider than the screen, and both themes work."""
    session.file(test_a=SUITE).run("--start-methods-report=report.html")
    url = (session.path / "report.html").as_uri()
    size(browser, 1280)
    browser.get(url)

    def css(selector):
        return browser.find_elements("css selector", selector)

    def shown(selector):
        return [each.text.splitlines()[0] for each in css(selector) if each.is_displayed()]

    def tests():
        return shown("tr.test > th")

    assert tests() == ["test_lambda", "test_fine", "test_nothing"]
    assert shown(".codehead h3") == ["SM101 local-function", "SM501 vacuous"]

    (chip,) = css('.chip[data-verdict="needs-fork"]')
    chip.click()
    assert chip.get_attribute("aria-pressed") == "true"
    assert tests() == ["test_lambda"]
    assert shown(".codehead h3") == ["SM101 local-function"]
    assert css("#shown")[0].text == "1 of 3 tests"
    css('button[type="reset"]')[0].click()
    css('.chip[data-code="SM501"]')[0].click()
    assert tests() == ["test_nothing"]
    assert [each.text for each in css(".tile .number")] == ["0", "0", "1"]  # the counts follow the filter
    assert browser.execute_script("return location.hash") == "#?code=SM501"
    browser.get(f"{url}#?q=test_fine")
    browser.refresh()
    assert tests() == ["test_fine"]  # the filter is part of the URL
    css('button[type="reset"]')[0].click()
    css("#text")[0].send_keys("test_fine")
    assert (tests(), shown(".codehead h3")) == (["test_fine"], [])
    css('button[type="reset"]')[0].click()
    assert len(tests()) == 3

    (link,) = [each for each in css(".codes a") if each.text == "SM101"]
    link.click()
    cause = next(each for each in css("details.cause") if each.get_attribute("open"))
    assert cause.find_element("css selector", ".fix").text.startswith("Fix replace the lambda by a function")
    left, right = cause.find_elements("css selector", ".side")
    assert left.find_element("css selector", ".meant .line").text.strip() == "process.start()"
    assert "no child: start() raised" in right.text
    assert left.rect["y"] == right.rect["y"]  # next to each other
    assert left.rect["x"] < right.rect["x"]

    colour = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(colour)
    css("#theme")[0].click()
    assert browser.execute_script(colour) != light
    size(browser, 390, "dark")
    browser.execute_script("localStorage.clear()")
    browser.get(url)
    assert browser.execute_script(colour) != light
    for summary in css("details:not([open]) > summary"):
        if summary.is_displayed():
            summary.click()
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    left, right = css("details.cause[open] .side")[:2]
    assert left.rect["y"] < right.rect["y"]  # below each other

    # Keyboard only: from the top to the first filter, and "/" to the search field.
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.get(url)
    ActionChains(browser).send_keys("/").perform()
    assert browser.switch_to.active_element.get_attribute("id") == "text"
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).send_keys(Keys.ENTER).perform()
    assert browser.switch_to.active_element.get_attribute("aria-pressed") == "true"
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []


def test_without_javascript(session, browser):
    """The page stays readable: findings open, and filters that would not work are hidden."""
    session.file(test_a=SUITE).run("--start-methods-report=report.html")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get((session.path / "report.html").as_uri())
    assert not browser.find_element("id", "controls").is_displayed()
    assert not any(each.is_enabled() for each in browser.find_elements("css selector", ".tile"))
    assert not browser.find_element("id", "theme").is_displayed()
    assert browser.find_element("css selector", "details.cause .fix").is_displayed()
