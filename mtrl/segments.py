"""The rows of a replay on the disk, in files that never change: a checkpoint adds those of the rows that are new.

Rows are numbered per task, from the task's first ever. A segment holds consecutive rows of one or more tasks, and
belongs to every checkpoint that names it in its manifest. Its own name tells its content and the step it was written
at: files of a run that got further than the checkpoint it was continued from are not mistaken for later ones.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from mtrl import files
from mtrl.files import Digest

SEGMENT_BYTES = 64 * 2**20
"""The most that a segment holds: all that a save needs in memory where the replay is on another device."""

_SUFFIX = ".rows"
_PARTIAL = "partial.rows"


class Piece(NamedTuple):
    """Consecutive rows of one task."""

    task: int
    start: int
    stop: int

    @property
    def rows(self) -> range:
        """The rows' numbers."""
        return range(self.start, self.stop)


@dataclass(frozen=True)
class Segment:
    """One file: the rows of its pieces, one after the other."""

    name: str
    digest: Digest
    pieces: tuple[Piece, ...]


@runtime_checkable
class Rows(Protocol):
    """Rows of fixed size of several tasks, numbered per task, of which the newest are there."""

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        ...

    def live(self) -> list[range]:
        """Return which rows are there, per task."""
        ...

    def read(self, task: int, rows: range) -> Iterator[memoryview]:
        """Return the bytes of rows that are there, in as many parts as they lie in."""
        ...

    def write(self, task: int, rows: range, content: memoryview) -> None:
        """Put the rows to their places, except those that are older than what is there."""
        ...


def extend(folder: Path, step: int, rows: Rows, before: Iterable[Segment]) -> list[Segment]:
    """Write the rows that no segment holds yet.

    Args:
        folder: Where the segments are.
        step: Goes into the names of new ones.
        rows: All that is to be on the disk.
        before: Segments of the same rows as they were earlier. Those whose files are gone are written anew.

    Returns:
        The segments that hold all rows, the old ones among them first.

    Raises:
        OSError: The rows do not fit on the disk, or cannot be written.
    """
    folder.mkdir(exist_ok=True)
    live = rows.live()
    kept = [segment for segment in before if _is_needed(segment, live) and _is_there(folder, segment)]
    packed = _packed(_gaps(live, kept), max(1, SEGMENT_BYTES // rows.row_bytes))
    new = [_write(folder, step, rows, pieces) for pieces in packed]
    files.sync_folder(folder)
    return [*kept, *new]


def restore(folder: Path, segments: Iterable[Segment], rows: Rows) -> None:
    """Put all rows that are there by their numbers back from the disk.

    Raises:
        ValueError: A file is not as it was written or cannot be read, or rows are in no segment or of another size.
        FileNotFoundError: A file is missing.
    """
    live = rows.live()
    held = [0] * len(live)
    for segment in segments:
        content = memoryview(files.read(folder / segment.name, segment.digest))
        for piece in segment.pieces:
            size = len(piece.rows) * rows.row_bytes
            rows.write(piece.task, piece.rows, content[:size])
            content = content[size:]
            held[piece.task] += len(_overlap(piece.rows, live[piece.task]))
    if held != [len(span) for span in live]:
        raise ValueError(f"{folder} holds {held} rows per task, expected {[len(span) for span in live]}")


def check(folder: Path, segments: Iterable[Segment]) -> None:
    """Read segments through.

    Raises:
        ValueError: One is not as it was written or cannot be read; the message names it.
        FileNotFoundError: One is missing.
    """
    for segment in segments:
        files.check(folder / segment.name, segment.digest)


def discard(folder: Path, needed: set[str]) -> None:
    """Delete all segments but those of these names, as far as the disk allows it."""
    for path in folder.glob(f"*{_SUFFIX}"):
        if path.name not in needed:
            with suppress(OSError):
                path.unlink()


def _is_needed(segment: Segment, live: Sequence[range]) -> bool:
    return any(piece.stop > live[piece.task].start for piece in segment.pieces)


def _is_there(folder: Path, segment: Segment) -> bool:
    path = folder / segment.name
    return path.is_file() and path.stat().st_size == segment.digest.size


def _gaps(live: Sequence[range], kept: Sequence[Segment]) -> Iterator[Piece]:
    """Yield the rows that are in none of the segments."""
    held: list[list[Piece]] = [[] for _ in live]
    for segment in kept:
        for piece in segment.pieces:
            held[piece.task].append(piece)
    for task, span in enumerate(live):
        start = span.start
        for piece in sorted(held[task]):
            if piece.start > start:
                yield Piece(task, start, piece.start)
            start = max(start, piece.stop)
        if start < span.stop:
            yield Piece(task, start, span.stop)


def _packed(pieces: Iterable[Piece], num_rows: int) -> Iterator[tuple[Piece, ...]]:
    """Deal the pieces out to segments of at most `num_rows` rows, cutting them where one is full."""
    packed: list[Piece] = []
    room = num_rows
    for piece in pieces:
        rest = piece.rows
        while rest:
            part, rest = rest[:room], rest[room:]
            packed.append(Piece(piece.task, part.start, part.stop))
            room -= len(part)
            if room == 0:
                yield tuple(packed)
                packed, room = [], num_rows
    if packed:
        yield tuple(packed)


def _write(folder: Path, step: int, rows: Rows, pieces: tuple[Piece, ...]) -> Segment:
    partial = folder / _PARTIAL
    digest = files.write(partial, (part for piece in pieces for part in rows.read(piece.task, piece.rows)))
    name = f"{step:012d}-{digest.sha256[:16]}{_SUFFIX}"
    partial.replace(folder / name)
    return Segment(name, digest, pieces)


def _overlap(a: range, b: range) -> range:
    return range(max(a.start, b.start), min(a.stop, b.stop))
