"""The folder a report is written to: it takes the place of an earlier report, and never that of other files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mtrl.flags import UsageError

LIST = "files.json"
"""Holds the names of the files that belong to the report."""


@contextmanager
def replace(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write a report to; then move what is there to `folder`, where an earlier report goes.

    Raises:
        UsageError: A file of that name there belongs to no report, the folder holds other files and no report, or
            cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = _earlier(folder)
        with TemporaryDirectory(prefix=".report-", dir=folder) as staging:
            yield Path(staging)
            names = sorted(path.name for path in Path(staging).iterdir())
            for name in names:
                if name not in earlier and (folder / name).exists():
                    raise UsageError(f"--output: {folder / name} belongs to no report; move it, or name another folder")
            for name in earlier:
                (folder / name).unlink(missing_ok=True)
            (folder / LIST).write_text(json.dumps([*names, LIST], indent=1) + "\n", encoding="utf-8")
            for name in names:
                (Path(staging) / name).replace(folder / name)
    except OSError as problem:
        raise UsageError(f"--output: cannot write {problem.filename or folder}: {problem.strerror}") from problem


def _earlier(folder: Path) -> set[str]:
    """Return the names of the files of the report in the folder, none if it is empty."""
    found = {path.name for path in folder.iterdir()}
    if not found:
        return set()
    try:
        names = json.loads((folder / LIST).read_text(encoding="utf-8"))
        return {Path(name).name for name in names}
    except (OSError, ValueError, TypeError):
        raise UsageError(
            f"--output: {folder} holds other files, such as {min(found)}, and no report; name a new folder, or that of "
            "an earlier report"
        ) from None
