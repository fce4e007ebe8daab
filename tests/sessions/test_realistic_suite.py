"""A realistic suite with 19 tests, 39 failing legs and five causes: how much is printed about it."""

from __future__ import annotations

import multiprocessing

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        multiprocessing.get_all_start_methods() != ["fork", "spawn", "forkserver"], reason="the legs counted are these"
    ),
]

SHOP = {
    "pyproject.toml": """
        [tool.pytest.ini_options]
        pythonpath = ["src"]
        testpaths = ["tests"]
        filterwarnings = ["ignore::ResourceWarning"]
    """,
    "src/shop/__init__.py": "",
    "src/shop/settings.py": '''
        """Settings of the shop, changed by deployments and tests."""

        CURRENCY = "EUR"
        RATES = {"EUR": 1.0}
    ''',
    "src/shop/service.py": '''
        """A service with a lock and a log file."""

        import os
        import threading

        from shop import settings


        class Service:
            """Prices things."""

            def __init__(self, prices):
                self.prices = prices
                self._lock = threading.Lock()
                self._log = open(os.devnull, "w")

            def price(self, name):
                with self._lock:
                    self._log.write(name)
                    return self.prices[name]

            def send_price(self, queue, name):
                queue.put(self.price(name))

            def send_total(self, queue, names):
                queue.put(sum(self.price(name) for name in names))


        def convert(amount):
            return amount * settings.RATES[settings.CURRENCY]


        def send_converted(queue, amount):
            queue.put(convert(amount))
    ''',
    "src/shop/registry.py": '''
        """Handlers of events, registered by the application."""

        HANDLERS = {}


        def register(name, handler):
            HANDLERS[name] = handler


        def dispatch(name, value):
            handler = HANDLERS.get(name)
            return handler(value) if handler is not None else None


        def send_dispatched(queue, name, value):
            queue.put(dispatch(name, value))
    ''',
    "src/shop/handlers.py": '''
        """Handlers that an application may register."""


        def double(value):
            return 2 * value


        def describe(value):
            return f"value {value}"
    ''',
    "tests/support.py": '''
        import multiprocessing


        def answer(target, *args):
            """Run `target(queue, *args)` in a process, and return what it puts into the queue."""
            queue = multiprocessing.SimpleQueue()
            process = multiprocessing.Process(target=target, args=(queue, *args))
            process.start()
            process.join(30)
            assert process.exitcode == 0
            return queue.get()


        def mapped(function, values):
            """Map `function` over `values` in a pool."""
            with multiprocessing.Pool(1) as pool:
                return pool.map(function, values)
    ''',
    "tests/test_service.py": """
        import pytest
        from shop.service import Service
        from support import answer

        pytestmark = pytest.mark.startmethods

        PRICES = {"tea": 3, "cake": 5, "jam": 4}


        @pytest.fixture
        def service():
            return Service(PRICES)


        @pytest.mark.parametrize("name", ["tea", "cake"])
        def test_prices(service, name):
            assert answer(service.send_price, name) == PRICES[name]


        def test_total(service):
            assert answer(service.send_total, ["tea", "jam"]) == 7


        def test_two_services(service):
            other = Service({"tea": 9})
            assert answer(service.send_price, "tea") == 3
            assert answer(other.send_price, "tea") == 9


        def test_discount(service):
            discount = 2

            def send(queue):
                queue.put(PRICES["cake"] - discount)

            assert answer(send) == 3
    """,
    "tests/test_tasks.py": """
        import pytest
        from shop.service import Service
        from support import mapped

        pytestmark = pytest.mark.startmethods

        PRICES = {"tea": 3, "cake": 5, "jam": 4}


        @pytest.fixture
        def service():
            return Service(PRICES)


        def test_all_prices(service):
            assert mapped(service.price, ["tea", "cake"]) == [3, 5]


        @pytest.mark.parametrize("name", ["tea", "cake", "jam"])
        def test_one_price(service, name):
            assert mapped(service.price, [name]) == [PRICES[name]]


        def test_prices_of_a_small_shop():
            small = Service({"tea": 1})
            assert mapped(small.price, ["tea"]) == [1]


        def test_halved():
            def halved(name):
                return PRICES[name] / 2

            assert mapped(halved, ["jam"]) == [2]


        def test_offers():
            class Offer:
                def __init__(self, name):
                    self.name = name

            assert mapped(len, [[Offer("tea")], [Offer("jam")]]) == [1, 1]
    """,
    "tests/test_convert.py": """
        import pytest
        from shop import service, settings
        from support import answer

        pytestmark = pytest.mark.startmethods


        @pytest.mark.parametrize(("currency", "rate"), [("USD", 2.0), ("GBP", 3.0)])
        def test_convert(monkeypatch, currency, rate):
            monkeypatch.setattr(settings, "CURRENCY", currency)
            monkeypatch.setattr(settings, "RATES", {currency: rate, "EUR": 1.0})
            assert answer(service.send_converted, 10) == 10 * rate
    """,
    "tests/test_registry.py": """
        import pytest
        from shop import handlers, registry
        from support import answer

        pytestmark = pytest.mark.startmethods


        @pytest.fixture(autouse=True)
        def application():
            registry.register("double", handlers.double)
            registry.register("describe", handlers.describe)
            yield
            registry.HANDLERS.clear()


        def test_double():
            assert answer(registry.send_dispatched, "double", 4) == 8


        def test_describe():
            assert answer(registry.send_dispatched, "describe", 4) == "value 4"
    """,
    "tests/test_plain.py": """
        import multiprocessing

        import pytest
        from shop import service
        from support import answer

        pytestmark = pytest.mark.startmethods


        def test_convert():
            assert answer(service.send_converted, 10) == 10


        def test_no_process():
            assert service.convert(10) == 10


        def test_pinned():
            context = multiprocessing.get_context("fork")
            queue = context.SimpleQueue()
            process = context.Process(target=service.send_converted, args=(queue, 10))
            process.start()
            process.join(30)
            assert queue.get() == 10
    """,
}


@pytest.fixture
def shop(session):
    for name, text in SHOP.items():
        session.file(name, text)
    return session


def test_what_is_printed_fits(shop):
    """Each cause is explained once and each failure shown once; without tracebacks it all fits on a screen."""
    quiet = "--no-start-methods-verify", "--disable-warnings"  # fork warns in a process with threads, such as xdist's
    plain = shop.run(*quiet)
    assert sum(outcome == "failed" for outcome in plain.results.values()) == 39
    assert "19 tests: 1 passes everywhere, 9 need fork, 7 fail everywhere, 2 vacuous" in plain.lines
    assert len(plain.lines) <= 350
    assert plain.out.count("fix: create the lock in the child") == 2  # below the first failure, and in the summary
    assert sum(line.startswith("FAILED ") for line in plain.lines) == 16
    assert "and 23 more legs of these tests, failing the same way (-v)" in plain.lines
    short = shop.run(*quiet, "--tb=no")
    assert len(short.lines) <= 60
    groups = [line.partition(",")[0] for line in short.lines if line.startswith("SM")]
    assert groups[:2] == ["SM103 unpicklable-object", "SM303 patch-lost"]


def test_nothing_is_lost_at_v(shop):
    """Every failing leg has its traceback and line, and every test of a cause is named."""
    out = shop.run("-v", "--no-start-methods-verify")
    assert sum(line.startswith("FAILED ") for line in out.lines) == 39
    assert sum(line.startswith("E   ") and "cannot pickle" in line for line in out.lines) == 23
    assert "  tests/test_tasks.py::test_one_price[tea] (fork, spawn, forkserver)" in out.lines


def test_one_line_a_failure(shop):
    """With --tb=line each has its cause, and -q ends with one line."""
    out = shop.run("--tb=line", "-q", "--no-start-methods-verify")
    assert sum(line.endswith("[SM103 unpicklable-object]") for line in out.lines) == 23
    assert (
        "start methods: 19 tests: 1 passes everywhere, 9 need fork, 7 fail everywhere, 2 vacuous "
        "[SM101 x2, SM102 x1, SM103 x9, SM301 x2, SM303 x2]"
    ) in out.lines
