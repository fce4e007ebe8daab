"""Which marker is printed for which results."""

from builders import leg
from pytest_startmethod.session import markers


def printed(*results):
    text = markers.lines(results, {}, ("fork", "spawn"), every=False, verbose=False)
    return [line.strip() for line in text if "@" in line]


def own(test="tests/test_a.py::test_x"):
    return leg("fork", test=test, nodeid=test, discovered=True)


def test_a_leg_that_always_fails_is_expected_to_fail():
    assert printed(own(), leg("spawn", "failed", discovered=True)) == [
        '@pytest.mark.startmethods("fork", "spawn", xfail=("spawn",), reason="fails under spawn", strict=True)'
    ]


def test_a_flaky_leg_is_not_expected_to_fail_each_time():
    """A strict xfail would break the build when the leg passes."""
    assert printed(own(), leg("spawn", "failed", discovered=True, flaky=True)) == [
        '@pytest.mark.startmethods("fork", "spawn", xfail=("spawn",), reason="flaky under spawn")'
    ]
