"""A file of records that survives a disk that is full for a while."""

import os
from collections.abc import Callable
from pathlib import Path


class AppendFile:
    """A file that only grows. What the disk does not take is kept, and written first as soon as it does."""

    def __init__(self, path: Path, size: int, report: Callable[[OSError], None]) -> None:
        """Open the file, or create it.

        Args:
            path: Of the file.
            size: Bytes of it that count; what stands beyond is cut off.
            report: Told of every failure to write; it names the file.

        Raises:
            OSError: It cannot be opened.
        """
        self.path = path
        self._report = report
        self._pending = bytearray()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        if os.fstat(self._descriptor).st_size > size:
            os.ftruncate(self._descriptor, size)

    def append(self, content: bytes) -> None:
        """Write the bytes after all that were given before; whatever happens, the run goes on."""
        self._pending += content
        try:
            self._write()
        except OSError as problem:
            self._report(problem)

    def flush(self) -> int:
        """Return the size of the file when everything given is on the disk.

        Raises:
            OSError: It does not fit or cannot be written; it names the file.
        """
        self._write()
        try:
            os.fsync(self._descriptor)
        except OSError as problem:
            raise self._named(problem) from None
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the file; what could not be written is lost."""
        self.append(b"")
        os.close(self._descriptor)

    def _write(self) -> None:
        try:
            while self._pending:  # a write may stop within a record, which the next one completes
                del self._pending[: os.write(self._descriptor, self._pending)]
        except OSError as problem:
            raise self._named(problem) from None

    def _named(self, problem: OSError) -> OSError:
        problem.filename = str(self.path)
        return problem
