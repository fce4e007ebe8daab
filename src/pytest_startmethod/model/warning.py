"""The one warning category."""

from __future__ import annotations


class StartMethodWarning(UserWarning):
    """Something that the user's code does keeps a start method from being tested as asked."""
