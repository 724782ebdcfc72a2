"""A disk that is full or cannot be written, as the calls of the system tell it: for where nothing can be mounted."""

import errno
import os

_WRITING = os.O_WRONLY | os.O_RDWR


class FullDisk:
    """Lets `os.write` take a number of bytes in all, then fail; what is deleted makes no room."""

    def __init__(self, monkeypatch, room: int = 0, number: int = errno.ENOSPC) -> None:
        self.room, self.number = room, number
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor, content):
        if not self.room:
            raise OSError(self.number, os.strerror(self.number))
        count = self._write(descriptor, bytes(content[: self.room]))
        self.room -= count
        return count


class ReadOnlyDisk:
    """Lets nothing be written, made, renamed or deleted."""

    def __init__(self, monkeypatch) -> None:
        self._open = os.open
        monkeypatch.setattr(os, "open", self.open)
        for name in ("write", "mkdir", "rename", "replace", "unlink", "rmdir", "fsync"):
            monkeypatch.setattr(os, name, self.refuse)

    def open(self, path, flags, *args, **options):
        if flags & _WRITING:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return self._open(path, flags, *args, **options)

    def refuse(self, path, *args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), *([str(path)] if not isinstance(path, int) else []))
