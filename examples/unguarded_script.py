"""A script without a main guard: it works where processes are forked, and nowhere else."""

import multiprocessing


def square(number):
    return number * number


with multiprocessing.Pool(2) as pool:
    print(pool.map(square, [1, 2, 3]))
