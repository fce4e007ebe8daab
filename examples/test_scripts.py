"""A script is run as its users run it, under every start method."""


def test_unguarded_script(start_method_script):
    """SM401: a child imports the script, and so starts processes of its own."""
    run = start_method_script("unguarded_script.py", timeout=30)
    assert run.stdout == "[1, 4, 9]\n"
