"""What the pages of the documentation show, as a reader would type it."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gymnasium
import pytest

from mtrl.flags import MODULES

ROOT = Path(__file__).parents[1]

PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))))


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), flags=re.MULTILINE | re.DOTALL)


def modules(*pages: str) -> dict[str, str]:
    """Return the blocks that begin with the name of the file they go into, by that name."""
    found = [
        (named[1], block)
        for page in pages
        for block in blocks(page, "python")
        if (named := re.match(r"# (\w+\.py)\n", block))
    ]
    assert len({name for name, _ in found}) == len(found), "two blocks for one file"
    return dict(found)


def write_modules(folder: Path, *pages: str) -> None:
    for name, block in modules(*pages).items():
        (folder / name).write_text(block, encoding="utf-8")


@contextmanager
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, *pages: str) -> Iterator[None]:
    """Be in a folder with the pages' modules; afterwards they have never been imported."""
    write_modules(folder, *pages)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv(MODULES, raising=False)
    known = dict(gymnasium.registry)
    yield
    gymnasium.registry.clear()
    gymnasium.registry.update(known)
    for name in modules(*pages):
        sys.modules.pop(name.removesuffix(".py"), None)


def commands(page: str) -> list[list[str]]:
    """Return the words of every `python -m mtrl.X` of a page, after `python -m`: in blocks and within sentences."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    found = dict.fromkeys([*lines, *re.findall(r"`([^`\n]+)`", read(page))])
    return [shlex.split(line)[2:] for line in found if line.startswith("python -m mtrl.")]


def printed(block: str) -> list[str]:
    """Return what a block's comments say that it prints."""
    return re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)


def run(folder: Path, *words: str, path: Path = ROOT) -> str:
    """Run Python in a folder and return what it printed; nothing may go wrong."""
    environment = os.environ | {"PYTHONPATH": str(path)}
    command = [sys.executable, *words]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout
