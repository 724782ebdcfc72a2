"""Files that are on the disk when a call returns, and that tell when they have changed since."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_READ_BYTES = 2**20


class StorageError(RuntimeError):
    """A run cannot be saved and does not go on. The message names the file and what is wrong."""


def told(problem: OSError) -> str:
    """Return what a person has to know of it: the file, if it was one, and what is wrong."""
    return f"{problem.filename}: {problem.strerror}" if problem.filename else str(problem)


class Digest(NamedTuple):
    """What tells the content of a file from any other."""

    size: int
    """In bytes."""
    sha256: str
    """In hexadecimal digits."""


def write(path: Path, chunks: Iterable[bytes | memoryview]) -> Digest:
    """Write the chunks into a new file, one after the other, and return when they are on the disk.

    Raises:
        OSError: They do not fit or cannot be written; it names the file, which stays as far as it came.
    """
    found, size = hashlib.sha256(), 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o644)
        try:
            for chunk in chunks:
                rest = memoryview(chunk).cast("B")
                found.update(rest)
                size += len(rest)
                while rest:  # the last write before a full disk may stop early, and only the next one raises
                    rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
            if hasattr(os, "posix_fadvise"):  # whoever checks the file reads it from the disk
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    except OSError as problem:
        problem.filename = problem.filename or str(path)
        raise
    return Digest(size, found.hexdigest())


def check(path: Path, expected: Digest) -> None:
    """Read the file through.

    Raises:
        ValueError: It is not as expected or cannot be read; the message names it.
        FileNotFoundError: There is none.
    """
    found, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
    with _reading(path, expected) as file:
        while count := file.readinto(buffer):
            found.update(buffer[:count])
    _compare(path, found.hexdigest(), expected)


def read(path: Path, expected: Digest) -> bytearray:
    """Return the content of the file.

    Raises:
        ValueError: It is not as expected or cannot be read; the message names it.
        FileNotFoundError: There is none.
    """
    content = bytearray(expected.size)
    with _reading(path, expected) as file:
        file.readinto(content)
    _compare(path, hashlib.sha256(content).hexdigest(), expected)
    return content


def sync_folder(folder: Path) -> None:
    """Make renames and new files in `folder` survive a power cut, where the system offers it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _reading(path: Path, expected: Digest) -> Iterator[io.BufferedReader]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected.size:
                raise ValueError(f"{path} is damaged: it has {size:,} bytes, {expected.size:,} were written")
            yield file
    except FileNotFoundError as problem:
        raise FileNotFoundError(f"{path} is missing") from problem
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem.strerror}") from problem


def _compare(path: Path, sha256: str, expected: Digest) -> None:
    if sha256 != expected.sha256:
        raise ValueError(f"{path} is damaged: its bytes are not those that were written")
