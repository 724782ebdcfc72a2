"""The manifest of a checkpoint: every file it consists of, with size and SHA-256, those of the manifest included."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtrl import files
from mtrl.files import Digest
from mtrl.segments import Piece, Segment

NAME = "manifest.json"

FORMAT = 4
"""Changes when an older version could not read a checkpoint. Format 1 had no manifest."""

_SEAL = "sha256"
"""Key of the hash of everything else in the manifest."""


class FormatError(ValueError):
    """A checkpoint of another format: it may be whole, but this version cannot read it."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint consists of."""

    step: int
    files: dict[str, Digest] = field(default_factory=dict)
    """In the checkpoint's folder, by name."""
    segments: tuple[Segment, ...] = ()
    """Of the replay, in a folder that all checkpoints share."""


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into the checkpoint's folder.

    Raises:
        OSError: It cannot be written.
    """
    content = {
        "format": FORMAT,
        "step": manifest.step,
        "files": {name: digest._asdict() for name, digest in manifest.files.items()},
        "segments": {
            segment.name: {**segment.digest._asdict(), "pieces": segment.pieces} for segment in manifest.segments
        },
    }
    files.write(folder / NAME, [_sealed(content).encode()])


def read(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint.

    Raises:
        ValueError: It is not as it was written or cannot be read; the message names it.
        FormatError: It is of another format.
        FileNotFoundError: There is none.
    """
    path = folder / NAME
    content = _unsealed(path)
    if content["format"] != FORMAT:
        raise FormatError(
            f"{folder} is a checkpoint of format {content['format']}; this version of mtrl reads format {FORMAT}"
        )
    return Manifest(
        step=content["step"],
        files={name: _digest(entry) for name, entry in content["files"].items()},
        segments=tuple(
            Segment(name, _digest(entry), tuple(Piece(*piece) for piece in entry["pieces"]))
            for name, entry in content["segments"].items()
        ),
    )


def _digest(entry: dict[str, Any]) -> Digest:
    return Digest(entry["size"], entry["sha256"])


def _sealed(content: dict[str, Any]) -> str:
    """Return the text of a manifest."""
    seal = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps(content | {_SEAL: seal}) + "\n"


def _unsealed(path: Path) -> dict[str, Any]:
    """Return the content of a manifest, of whatever format."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        del content[_SEAL]
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem.strerror}") from problem
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise ValueError(f"{path} is damaged: it is no manifest") from problem
    if text != _sealed(content):
        raise ValueError(f"{path} is damaged: its bytes are not those that were written")
    return content
