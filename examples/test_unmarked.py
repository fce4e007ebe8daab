"""Tests without a marker: `pytest --start-methods-discover examples/test_unmarked.py` finds those that need fork."""

import multiprocessing
import threading


class Basket:
    def __init__(self, *prices):
        self.prices = prices
        self.lock = threading.Lock()

    def total(self, answers):
        with self.lock:
            answers.put(sum(self.prices))


def test_total():
    answers = multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=Basket(1, 2).total, args=(answers,))
    process.start()
    assert answers.get() == 3
    process.join()


def double(number):
    return 2 * number


def test_double():
    with multiprocessing.Pool(2) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]


def test_sum():
    assert sum([1, 2]) == 3
