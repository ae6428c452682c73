"""The lock on a run's directory: one process writes there at a time."""

import errno
import fcntl
import logging
import os
import time
from pathlib import Path
from weakref import WeakSet

from fedsplit.errors import UserError

LOCK = ".lock"
"""File in a run's directory, there while a process writes to it; one that was killed leaves it behind."""
_LOG = logging.getLogger("fedsplit")
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunLock:
    """A lock on a file, which the kernel takes back when the process ends, however it ends.

    Processes that this one starts or forks do not hold it.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock; nothing is done where it is held here already.

        Raises:
            UserError: another process holds it.
            OSError: the directory cannot be written.
        """
        while self._descriptor is None:
            descriptor = os.open(self._path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._lock(descriptor)
                # Who held it may have removed the file meanwhile: then another one is to be locked.
                if self._is_there(descriptor):
                    self._descriptor, descriptor = descriptor, -1
                    _held.add(self)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def release(self) -> None:
        """Give the lock back, and remove its file; nothing is done where it is not held here."""
        if self._descriptor is None:
            return
        if self._is_there(self._descriptor):
            (self._path / LOCK).unlink(missing_ok=True)
        self.drop()

    def drop(self) -> None:
        """Close the file and leave it: the lock lasts for as long as another process has it open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.drop()

    def _lock(self, descriptor: int) -> None:
        try:
            _lock_at_once(descriptor)
        except BlockingIOError as error:
            message = "another process is at work in this directory; wait until it has ended"
            raise UserError(self._key, self._path, message) from error
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            _LOG.warning("%s: its file system has no locks; let only one process write there", self._path)

    def _is_there(self, descriptor: int) -> bool:
        try:
            found = os.stat(self._path / LOCK)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(descriptor))


_held: WeakSet[RunLock] = WeakSet()


def _drop_in_child() -> None:
    """A process that is forked while a lock is held must not keep it after the one that holds it."""
    for lock in list(_held):
        lock.drop()


os.register_at_fork(after_in_child=_drop_in_child)


def is_locked(path: Path) -> bool:
    """True if a process writes to the directory of a run now."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _lock_at_once(descriptor: int) -> None:
    """Lock a file; `BlockingIOError` where another process holds it for longer than a look at it takes."""
    for _ in range(5):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
