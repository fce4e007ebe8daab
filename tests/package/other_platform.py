"""A plugin for nested sessions that shows our modules the os, signal and sys of another platform.

Load it before the plugin itself. OTHER_PLATFORM is ``win32`` or ``darwin``. Names missing on that platform raise
AttributeError or ImportError for our code; all other code still sees this platform.
"""

from __future__ import annotations

import builtins
import concurrent.futures.process  # noqa: F401 - the standard library is to see the platform that it runs on
import importlib.abc
import importlib.machinery
import multiprocessing.forkserver
import multiprocessing.managers
import multiprocessing.popen_fork
import multiprocessing.popen_forkserver
import multiprocessing.popen_spawn_posix
import os
import signal
import sys
import types

PLATFORM = os.environ["OTHER_PLATFORM"]
METHODS = {"win32": ["spawn"], "darwin": ["spawn", "fork", "forkserver"]}[PLATFORM]

NO_MODULES = {"win32": ("fcntl", "resource", "pwd", "grp", "termios", "posix", "pty", "syslog"), "darwin": ()}[PLATFORM]
# From the "Availability" lines of the library reference.
NOT_ON_WINDOWS = {
    "os": "fork forkpty getpgid getpgrp setpgid setsid getsid getuid geteuid getgid getegid killpg mkfifo mknod nice "
    "posix_spawn posix_spawnp O_NONBLOCK O_CLOEXEC O_NOFOLLOW O_DIRECTORY WNOHANG WEXITED WNOWAIT P_PID waitid wait "
    "wait3 wait4 WIFEXITED WIFSIGNALED WTERMSIG WEXITSTATUS register_at_fork environb sysconf uname fchmod fchown "
    "chown lchown getloadavg pipe2 ttyname openpty sched_getaffinity sched_yield getpriority setuid setgid ctermid",
    "signal": "SIGKILL SIGALRM SIGSTOP SIGCONT SIGCHLD SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGPIPE SIGRTMIN SIGRTMAX "
    "SIGTSTP SIGXFSZ SIGBUS SIGSYS alarm setitimer getitimer ITIMER_REAL ITIMER_VIRTUAL pthread_sigmask pthread_kill "
    "sigwait sigwaitinfo sigtimedwait sigpending siginterrupt pause SIG_BLOCK SIG_SETMASK SIG_UNBLOCK",
}
NOT_ON_MACOS = {
    "os": "waitid P_PID WEXITED WNOWAIT pipe2 sched_getaffinity memfd_create eventfd",
    "signal": "SIGRTMIN SIGRTMAX sigwaitinfo sigtimedwait",
}
MISSING = {"win32": NOT_ON_WINDOWS, "darwin": NOT_ON_MACOS}[PLATFORM]


class WinApi(types.ModuleType):
    """Answers `_winapi` queries about processes on this platform."""

    WAIT_TIMEOUT = 0x102

    @staticmethod
    def OpenProcess(access: int, inherit: bool, pid: int) -> int:  # noqa: N802
        os.kill(pid, 0)
        return pid

    @staticmethod
    def WaitForSingleObject(handle: int, milliseconds: int) -> int:  # noqa: N802
        return WinApi.WAIT_TIMEOUT

    @staticmethod
    def CloseHandle(handle: int) -> None:  # noqa: N802
        pass


class Msvcrt(types.ModuleType):
    """The C runtime; here handles are descriptors, and line ends are not translated."""

    @staticmethod
    def setmode(descriptor: int, flags: int) -> int:
        return flags

    @staticmethod
    def get_osfhandle(descriptor: int) -> int:
        return descriptor


class Elsewhere(types.ModuleType):
    """A module as it is on the other platform."""

    def __init__(self, module: types.ModuleType, **others: object) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(_here=module, _missing=set(MISSING.get(module.__name__, "").split()), **others)

    def __getattr__(self, name: str) -> object:
        if name in self._missing:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on {PLATFORM}")
        return getattr(self._here, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._here, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._here, name)


MODULES = {
    "os": Elsewhere(os, **({"name": "nt", "O_BINARY": 0} if PLATFORM == "win32" else {})),
    "signal": Elsewhere(signal),
    "sys": Elsewhere(sys, platform=PLATFORM),
    **({"_winapi": WinApi("_winapi"), "msvcrt": Msvcrt("msvcrt")} if PLATFORM == "win32" else {}),
}


def import_elsewhere(name, globals=None, locals=None, fromlist=(), level=0):  # noqa: A002 - as builtins call it
    if level == 0 and name in NO_MODULES:
        raise ImportError(f"No module named {name!r} on {PLATFORM}")
    if level == 0 and name in MODULES:
        return MODULES[name]
    return builtins.__import__(name, globals, locals, fromlist, level)


class Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: types.ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": import_elsewhere}
        super().exec_module(module)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] != "pytest_startmethod":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(fullname, spec.origin)
        return spec


context = multiprocessing.context
for where in (multiprocessing, context.DefaultContext):
    where.get_all_start_methods = lambda *_: list(METHODS)
context._default_context._default_context = context._concrete_contexts["spawn"]
for _method in set(context._concrete_contexts) - set(METHODS):
    del context._concrete_contexts[_method]
for _name in [name for name in sys.modules if name.partition(".")[0] == "pytest_startmethod"]:
    del sys.modules[_name]
sys.meta_path.insert(0, Finder())
