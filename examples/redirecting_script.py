"""A script whose first process starts while the temporary directory is another one, which then goes away."""

import multiprocessing
import tempfile


def work():
    pass


def start():
    process = multiprocessing.Process(target=work)
    process.start()
    process.join()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        tempfile.tempdir = directory
        start()
        tempfile.tempdir = None
    start()
    print("done")
