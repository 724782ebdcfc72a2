"""Checkpoints: written whole or not at all, checked before anything of them is used, loaded without executing anything.

A checkpoint is a folder named by its step, holding one file per part (agent, replay, ...) and a manifest. It is written
under another name, read back from the disk, and renamed; and renamed again before it is deleted:

000000012000           complete
.old-000000012000      complete; one of the same step is taking its place, and counts instead as soon as it has its name
.partial-000000012000  being written or deleted
.damaged-000000012000  found damaged when the run was continued from an older one; deleted after the next save
replay                 rows of the replay in segments that several checkpoints share
"""

import errno
import io
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtrl import files, manifest, segments
from mtrl.manifest import FormatError, Manifest
from mtrl.segments import Rows, Segment

KEEP = 3
"""Checkpoints kept; older ones are deleted once a newer one is complete."""

_SEGMENTS = "replay"
_ARRAY = "__ndarray__"
_OLD = ".old-"
_PARTIAL = ".partial-"
_DAMAGED = ".damaged-"


def save(
    folder: Path, step: int, parts: Mapping[str, Any], rows: Rows | None = None, previous: Path | None = None
) -> Path:
    """Write a checkpoint atomically, see that it can be read back, and only then delete old ones.

    Args:
        folder: Where the run keeps its checkpoints.
        step: Environment steps so far; names the checkpoint.
        parts: File name -> tree of tensors, arrays, numbers, strings, lists, tuples, dicts and None.
        rows: What is kept in segments besides.
        previous: The last checkpoint of this run: rows that it has are not written again.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: The disk is full or cannot be written; it names the file. Earlier checkpoints are as they were, and
            nothing is left of this one.
    """
    if not folder.exists():
        folder.mkdir(parents=True)
        files.sync_folder(folder.parent)
    _discard_partial(folder)
    final = folder / f"{step:012d}"
    partial = folder / f"{_PARTIAL}{final.name}"
    try:
        partial.mkdir()
        digests = {f"{name}.pt": files.write(partial / f"{name}.pt", [_to_bytes(tree)]) for name, tree in parts.items()}
        before = _segments(previous)
        after = segments.extend(folder / _SEGMENTS, step, rows, before) if rows else []
        manifest.write(partial, Manifest(step=step, files=digests, segments=tuple(after)))
        files.sync_folder(partial)
        _check_written(partial, [segment for segment in after if segment not in before])
        if final.exists():
            final.rename(folder / f"{_OLD}{final.name}")
        partial.rename(final)
        files.sync_folder(folder)
    except Exception:
        _discard_partial(folder)
        raise
    _discard_old(folder)
    return final


def latest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in `folder`, or None."""
    complete = by_step(folder)
    return complete[max(complete)] if complete else None


def by_step(folder: Path) -> dict[int, Path]:
    """Return all complete checkpoints in `folder` by their step, oldest first."""
    complete: dict[int, Path] = {}
    for path in sorted(folder.glob("*")):  # `.old-` comes before numbers and gives way to them
        if (step := path.name.removeprefix(_OLD)).isdigit():
            complete[int(step)] = path
    return dict(sorted(complete.items()))


def latest_whole(folder: Path) -> Path | None:
    """Return the newest checkpoint in `folder` all of whose files are as they were written, or None without any.

    Newer ones, which are damaged, are told in warnings and set aside.

    Raises:
        ValueError: There are checkpoints, and all are damaged, or the newest whole one is of another format.
    """
    damaged: dict[Path, str] = {}
    for path in reversed(by_step(folder).values()):
        try:
            check(path)
        except FormatError:
            raise
        except (ValueError, FileNotFoundError) as problem:
            damaged[path] = str(problem)
            continue
        for other, problem in damaged.items():
            warnings.warn(f"{problem}; using the checkpoint of step {int(path.name):,} instead", stacklevel=3)
            _rename_over(other, folder / f"{_DAMAGED}{other.name}")
        return path
    if damaged:
        raise ValueError("no checkpoint can be used:\n" + "\n".join(dict.fromkeys(damaged.values())))
    return None


def check(checkpoint: Path) -> None:
    """Read every file of a checkpoint through.

    Raises:
        ValueError: One is not as it was written; the message names it.
        FormatError: The checkpoint is of another format.
        FileNotFoundError: One is missing.
    """
    found = _manifest(checkpoint)
    _check_files(checkpoint, found)
    segments.check(checkpoint.parent / _SEGMENTS, found.segments)


def load(checkpoint: Path, part: str, device: torch.device | str = "cpu") -> Any:
    """Read one part of a checkpoint.

    Raises:
        FileNotFoundError: The checkpoint is gone.
        ValueError: It has no such part, or the file is not as it was written or cannot be read; the message names it.
    """
    name = f"{part}.pt"
    if not _has_manifest(checkpoint):  # format 1
        warnings.warn(f"{checkpoint} has no {manifest.NAME}: it cannot be checked", stacklevel=2)
        return _from_bytes((checkpoint / name).read_bytes(), checkpoint / name, device)
    digests = _manifest(checkpoint).files
    if name not in digests:
        raise ValueError(f"{checkpoint} has no part {part!r}, only {', '.join(digests)}")
    return _from_bytes(files.read(checkpoint / name, digests[name]), checkpoint / name, device)


def load_rows(checkpoint: Path, rows: Rows) -> None:
    """Read the rows that a checkpoint keeps in segments.

    Args:
        checkpoint: The folder.
        rows: Told already which rows are to be there.

    Raises:
        FileNotFoundError: The checkpoint is gone, or a segment.
        ValueError: A file is not as it was written or cannot be read, or rows are in no segment or of another size.
    """
    segments.restore(checkpoint.parent / _SEGMENTS, _manifest(checkpoint).segments, rows)


def _segments(checkpoint: Path | None) -> tuple[Segment, ...]:
    """Return the segments of a checkpoint; none where it cannot be read any more."""
    if checkpoint is None:
        return ()
    try:
        return _manifest(checkpoint).segments
    except (ValueError, FileNotFoundError):
        return ()


def _manifest(checkpoint: Path) -> Manifest:
    """Read the manifest of a checkpoint and compare its step.

    Raises:
        ValueError: It is not as it was written, or missing.
        FileNotFoundError: The whole checkpoint is gone.
    """
    if not _has_manifest(checkpoint):
        raise ValueError(
            f"{checkpoint / manifest.NAME} is missing: it was deleted, or the checkpoint is of an early version of "
            "mtrl (format 1), whose runs can be evaluated and not continued"
        )
    found = manifest.read(checkpoint)
    if found.step != int(checkpoint.name.rpartition("-")[2]):
        raise ValueError(f"{checkpoint / manifest.NAME} is that of step {found.step}")
    return found


def _has_manifest(checkpoint: Path) -> bool:
    """Whether there is a manifest.

    Raises:
        FileNotFoundError: The whole checkpoint is gone.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint} is gone")
    return (checkpoint / manifest.NAME).exists()


def _check_written(checkpoint: Path, new: Sequence[Segment]) -> None:
    """Read back what was written for a checkpoint: its own files and new segments.

    Raises:
        OSError: It is not what was written.
    """
    try:
        _check_files(checkpoint, _manifest(checkpoint))
        segments.check(checkpoint.parent / _SEGMENTS, new)
    except (ValueError, FileNotFoundError) as problem:
        raise OSError(errno.EIO, f"it does not read back as it was written ({problem})", str(checkpoint)) from problem


def _check_files(checkpoint: Path, found: Manifest) -> None:
    for name, digest in found.files.items():
        files.check(checkpoint / name, digest)


def _discard_partial(folder: Path) -> None:
    """Delete what counts for nothing: torn checkpoints, those whose place another one has taken, unused segments."""
    for path in folder.glob(f"{_OLD}*"):
        if (folder / path.name.removeprefix(_OLD)).exists():
            _discard(path)
    for path in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)
    try:
        needed = {segment.name for path in by_step(folder).values() for segment in _manifest(path).segments}
    except (ValueError, FileNotFoundError):  # nobody knows then which segments that checkpoint needs
        return
    segments.discard(folder / _SEGMENTS, needed)


def _discard_old(folder: Path) -> None:
    """Delete all but the newest checkpoints."""
    kept = list(by_step(folder).values())[-KEEP:]
    for path in folder.glob("*"):
        if path not in kept and path.name.removeprefix(_DAMAGED).removeprefix(_OLD).isdigit():
            _discard(path)
    _discard_partial(folder)


def _discard(checkpoint: Path) -> None:
    """Delete a checkpoint as far as the disk allows it, never under the name of a complete one."""
    with suppress(OSError):
        partial = checkpoint.with_name(f"{_PARTIAL}{checkpoint.name}")
        _rename_over(checkpoint, partial)
        shutil.rmtree(partial)


def _rename_over(path: Path, target: Path) -> None:
    """Rename a folder, in place of one that may be there."""
    if target.exists():
        shutil.rmtree(target)
    path.rename(target)


def _to_bytes(tree: Any) -> memoryview:
    buffer = io.BytesIO()
    torch.save(_encode(tree), buffer)
    return buffer.getbuffer()


def _from_bytes(content: bytes | bytearray, path: Path, device: torch.device | str) -> Any:
    try:
        return _decode(torch.load(io.BytesIO(content), map_location=device, weights_only=True))
    except Exception as problem:  # of ten kinds on other bytes: unpickling, indexing, decoding, ...
        raise ValueError(f"{path} cannot be read: {type(problem).__name__}: {problem}") from problem


def _encode(tree: Any) -> Any:
    """Turn arrays into marked tensors: `weights_only` loading refuses arrays."""
    if isinstance(tree, np.ndarray):
        return {_ARRAY: torch.from_numpy(np.asarray(tree, order="C"))}
    if isinstance(tree, Mapping):
        return {key: _encode(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_encode(value) for value in tree)
    return tree


def _decode(tree: Any) -> Any:
    """Undo `_encode`."""
    if isinstance(tree, dict):
        if tree.keys() == {_ARRAY}:
            return tree[_ARRAY].numpy(force=True)
        return {key: _decode(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_decode(value) for value in tree)
    return tree
