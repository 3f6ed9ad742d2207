"""The lock of a folder's only writer, also where the file system refuses locks, as buckets and network mounts do.

There the writer keeps a lease instead: a file that it writes again every few seconds. Once that stops, on whichever
machine it was, the lease expires.
"""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.progress import repeating

LOCK_FILES = (".lock", ".lease")
_LOCK, _LEASE = LOCK_FILES

_BEAT_SECONDS, _LEASE_SECONDS = 10.0, 60.0
_SETTLE_SECONDS = 0.2  # until a lease that two processes write at the same time is that of one of them

_locking: set[int] = set()  # the devices whose file system is known to lock files


@contextmanager
def held(folder: Path, timeout: float) -> Iterator[None]:
    """Holds the folder's lock; the folder exists.

    Raises TimeoutError if another writer holds it for longer than `timeout` seconds, OSError if the folder cannot be
    written.
    """
    lock = _lock(folder, timeout)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except OSError:  # also a Timeout, which is a TimeoutError
            if not _refuses_locks(folder):
                raise
            stack.enter_context(_leased(folder))
        else:
            if _is_leased(folder):  # the file system refused another process the lock
                raise TimeoutError
        yield


def is_held(folder: Path) -> bool:
    """Returns whether a writer holds the folder's lock; False if that cannot be found out."""
    if _is_leased(folder):
        return True
    if not os.path.exists(folder / _LOCK):
        return False
    try:
        with _lock(folder, 0):
            return False
    except Timeout:
        return not _refuses_locks(folder)
    except OSError:
        return False


def _lock(folder: Path, timeout: float) -> FileLock:
    # Not thread-local: different threads run the steps of a generator that holds the lock. filelock's own fallback, a
    # file that is there or not, would outlast a process that dies on another machine.
    return FileLock(folder / _LOCK, timeout=timeout, thread_local=False, fallback_to_soft=False)


def _refuses_locks(folder: Path) -> bool:
    """Returns whether files can be written to the folder, but not locked.

    It tries to lock a new file of its own, because the error of such a file system may be the same as for a file that
    another process has locked.
    """
    path = folder / f"{_LOCK}-{secrets.token_hex(8)}"
    try:
        before = folder.stat()
        if before.st_dev in _locking:
            return False
        path.touch()
    except OSError:
        return False
    try:
        with FileLock(path, timeout=0, fallback_to_soft=False):
            _locking.add(before.st_dev)
            return False
    except OSError:
        return True
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
            os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))  # by which old runs are deleted


@contextmanager
def _leased(folder: Path) -> Iterator[None]:
    """Holds the folder's lease. Raises TimeoutError if another writer does."""
    path = folder / _LEASE
    if _is_leased(folder):
        raise TimeoutError
    content = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(16)}"
    path.write_text(content, encoding="utf-8")
    time.sleep(_SETTLE_SECONDS)
    if _content(path) != content:
        raise TimeoutError

    def renew() -> None:
        if _content(path) == content:
            with suppress(OSError):
                path.write_text(content, encoding="utf-8")

    try:
        with repeating(renew, _BEAT_SECONDS):
            yield
    finally:
        if _content(path) == content:
            with suppress(OSError):
                path.unlink()


def _is_leased(folder: Path) -> bool:
    """Returns whether the folder has a lease that has not expired and whose process, if it was on this machine, lives.

    Machines that share a file system must agree on the time to half a minute.
    """
    path = folder / _LEASE
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return False
    host, _, process = _content(path).partition(" ")
    number = process.partition(" ")[0]
    if host == socket.gethostname() and number.isdecimal() and len(number) < 10 and not _is_alive(int(number)):
        return False
    return abs(age) < _LEASE_SECONDS


def _is_alive(process: int) -> bool:
    """Returns whether this machine has a process of this number, or cannot say."""
    if os.name == "nt":  # os.kill would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
