"""Look at the forkserver that multiprocessing uses now."""

from __future__ import annotations

import ast
import os
import sys
import tempfile
import traceback
from multiprocessing.process import BaseProcess, current_process
from types import FrameType
from typing import Any

from .._compat import cpython
from .._compat import multiprocessing as mp
from ..model.place import Place
from ..model.server import Server
from ..source.callers import owner
from ..source.index import waiting_calls


def observe(error: BaseException | None) -> Server:
    """Return what can be seen of the server after `error`; runs no code of the user's."""
    if "multiprocessing.forkserver" not in sys.modules or not mp.has_forkserver():
        return Server()
    state = mp.server_state()
    socket, directory = mp.server_socket(state), cpython.temporary_directory_of(current_process())
    return Server(
        pid=mp.server_pid(state),
        socket=socket,
        directory=directory,
        gone=any(path is not None and not os.path.exists(path) for path in (socket, directory)),
        base=tempfile.tempdir or "",
        waited_for=_waited_for(error),
    )


def _waited_for(error: BaseException | None) -> dict[str, int]:
    """Return the pids that the user's failing line passes to ``os.waitpid`` and its kind, where they can be read."""
    if not isinstance(error, ChildProcessError):
        return {}
    found: dict[str, int] = {}
    for frame, line in traceback.walk_tb(error.__traceback__):
        if owner(frame.f_code.co_filename) == "user":
            for _, text in waiting_calls(Place(os.path.abspath(frame.f_code.co_filename), line)):
                value = _value(ast.parse(text, mode="eval").body, frame)
                if type(value) is int:
                    found[text] = value
    return found


def _value(node: ast.expr, frame: FrameType) -> Any:
    """Return the value of a name or of attributes of one, without calling any code of the user's; None if unknown."""
    if isinstance(node, ast.Name):
        return {**frame.f_globals, **frame.f_locals}.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    holder = _value(node.value, frame)
    if issubclass(type(holder), BaseProcess) and node.attr in ("pid", "ident"):
        return getattr(holder.__dict__.get(mp.POPEN), "pid", None)
    try:
        return object.__getattribute__(holder, "__dict__").get(node.attr)
    except AttributeError:
        return None
