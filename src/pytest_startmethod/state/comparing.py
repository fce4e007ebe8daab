"""Fresh children that report the values a real child would have. They stay warm for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ..source.callers import UserCode

# Imported only after a failure: a fork copies the page tables of everything that is loaded.
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..model.observed import Observed, Seen
    from .fresh_child import Loader


_MOST_FUNCTIONS: Final = 2_000


class Comparison:
    """Records the parent's values at each launch, and asks fresh children for theirs after a failure."""

    def __init__(self, root: str, packages: tuple[str, ...]) -> None:
        self._root = root
        self._packages = packages
        self._user: UserCode | None = None
        self._wide: dict[str, Any] = {}
        """Arguments of `observing.observe` while `widened`."""
        self._child: Loader | None = None
        self._second: Loader | None = None
        """A second fresh child, to tell which values vary between processes."""

    @contextmanager
    def widened(self, packages: frozenset[str]) -> Iterator[None]:
        """Within the context, treat the installed packages as user code, and follow up to 2,000 functions.

        Also record state that no code was seen to read.
        """
        before, wide = self._rule(), self._wide
        self._user = UserCode(before.packages | packages)
        self._wide = {"limit": _MOST_FUNCTIONS, "unseen": True}
        try:
            yield
        finally:
            self._user, self._wide = before, wide

    def _rule(self) -> UserCode:
        if self._user is None:
            self._user = UserCode.of_project(self._root, self._packages)
        return self._user

    def observe(self, *args: Any, **kwargs: Any) -> Observed | None:
        """Return what the code of a launch or task reads, with the parent's values; see `observing.observe`."""
        from . import observing

        return observing.observe(*args, user=self._rule(), **{**self._wide, **kwargs})

    def ask(self, observed: Observed, environ: Mapping[str, str] | None) -> Sequence[Seen]:
        """Return what two fresh children have in place of the observed values; empty if either did not answer."""
        from . import observing

        if self._second is None:
            from .fresh_child import Loader

            self._second = Loader()
        return observing.ask(observed, [self.fresh_child(), self._second], environ) or ()

    def fresh_child(self) -> Loader:
        """Return the session's fresh child, starting it on first use."""
        if self._child is None:
            from .fresh_child import Loader

            self._child = Loader().__enter__()
        return self._child

    def close(self) -> None:
        """End the children."""
        for child in (self._child, self._second):
            if child is not None:
                child.close()
