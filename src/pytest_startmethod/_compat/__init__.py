"""Private names of CPython, multiprocessing and pytest."""
