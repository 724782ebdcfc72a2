"""What `mtrl.doctor` looks at: each function answers with one line, how good that is and what to do about it."""

import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtrl import machine

DISTRIBUTION = "mtrl-aligned"

GIBIBYTE = 2**30

LITTLE_MEMORY, LEAST_MEMORY = 3 * GIBIBYTE, GIBIBYTE
"""MT10 takes 320 MiB of replay, 0.6 GB of environments and as much of torch; half of that with `mt10_cpu`."""

LITTLE_DISK, LEAST_DISK = 5 * GIBIBYTE, GIBIBYTE
"""A run of MT10 keeps its replay, 320 MiB, once, and two checkpoints."""

SLOW_FSYNC = 0.1
"""Seconds. A disk takes up to 0.03, a network's file system far more."""

BUSY = 0.5
"""Processes that want a core, as a part of the cores: from here on speeds measured are too low."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was found about one thing."""

    name: str
    status: Literal["ok", "warn", "fail"]
    """fail: training cannot run."""
    found: str
    advice: str = ""
    """What to do, where there is something to do."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """What was found, for programs: plain types; sizes in bytes, times in seconds."""


def packages() -> Iterator[Check]:
    """Compare Python and every required package with the bounds of this one."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    install = "pip install -e . in the folder of this package"
    try:
        about = importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield Check(name="mtrl", status="warn", found="not installed: bounds are unknown", advice=install)
        return
    python = platform.python_version()
    bound = about["Requires-Python"]
    fits = SpecifierSet(bound).contains(python, prereleases=True)
    advice = "" if fits else f"install Python {bound}"
    yield Check(
        name="python",
        status="ok" if fits else "fail",
        found=f"{python} ({bound})",
        advice=advice,
        numbers={"version": python},
    )
    for line in about.get_all("Requires-Dist") or ():
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(name=needed.name, status="fail", found="not installed", advice=install)
            continue
        fits = needed.specifier.contains(version, prereleases=True)
        yield Check(
            name=needed.name,
            status="ok" if fits else "fail",
            found=f"{version} ({needed.specifier})" if str(needed.specifier) else version,
            advice="" if fits else f"pip install '{needed.name}{needed.specifier}'",
            numbers={"version": version},
        )


def device() -> Check:
    """Look for CUDA, else say which processor computes."""
    import torch

    from mtrl.run_directory import cpu_name

    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        free, total = torch.cuda.mem_get_info()
        return Check(
            name="device",
            status="ok",
            found=f"{torch.cuda.get_device_name()}, capability {major}.{minor}, {_gib(free)} of {_gib(total)} free",
            numbers={"type": "cuda", "capability": [major, minor], "free": free, "total": total},
        )
    instructions = torch.backends.cpu.get_cpu_capability()
    is_blind = machine.has_nvidia_driver()
    built = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
    return Check(
        name="device",
        status="warn" if is_blind else "ok",
        found=f"CPU: {cpu_name()}, {instructions}",
        advice=f"this machine has NVIDIA's driver and torch, built {built}, sees no GPU: see pytorch.org"
        if is_blind
        else "",
        numbers={"type": "cpu", "instructions": instructions},
    )


def cores() -> Check:
    """Count the cores this process may use, and what limits and other work leave of them."""
    allowed, usable, quota, load = machine.allowed_cores(), machine.usable_cores(), machine.cpu_quota(), machine.load()
    limit = f" of {allowed}, limited to the time of {quota:.1f}" if quota is not None and quota < allowed else ""
    is_busy = load is not None and load > BUSY * allowed
    advice = []
    if limit:
        advice.append(f"give --threads {usable} at most")
    if is_busy:
        advice.append("other work is running: the speeds below are too low")
    return Check(
        name="cores",
        status="warn" if advice else "ok",
        found=f"{usable} usable{limit}" + ("" if load is None else f", load {load:.1f}"),
        advice="; ".join(advice),
        numbers={"usable": usable, "quota": quota, "load": load},
    )


def memory() -> Check:
    """See how much memory is free, limits of container and job included."""
    import torch

    from mtrl.memory import free_bytes

    free = free_bytes(torch.device("cpu"))
    advice = "use small presets, a smaller --replay.capacity and few --workers" if free < LITTLE_MEMORY else ""
    return Check(
        name="memory",
        status=_status(free, LITTLE_MEMORY, LEAST_MEMORY),
        found=f"{_gib(free)} free",
        advice=advice,
        numbers={"free": free},
    )


def shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """See how large /dev/shm is. It never limits a run: environments share memory without a name."""
    found = machine.space(folder)
    if found is None:
        return Check(name="/dev/shm", status="ok", found="none; not needed")
    numbers = {"free": found.free, "total": found.total}
    return Check(
        name="/dev/shm",
        status="ok",
        found=f"{_gib(found.free)} of {_gib(found.total)} free; not needed",
        numbers=numbers,
    )


def disk(folder: Path) -> Check:
    """See whether runs can be written in `folder`: room, permission, and how long a write takes to be safe."""
    found = machine.space(folder)
    assert found is not None
    text, numbers = f"{_gib(found.free)} of {_gib(found.total)} free in {folder}", {"free": found.free}
    try:
        seconds = machine.fsync_seconds(folder)
    except OSError as problem:
        return Check(
            name="disk",
            status="fail",
            found=f"{text}; cannot write: {problem.strerror}",
            advice="start runs elsewhere: --run-dir",
            numbers=numbers,
        )
    status, advice = _status(found.free, LITTLE_DISK, LEAST_DISK), []
    if status != "ok":
        advice.append("free some, or start runs elsewhere: --run-dir")
    if seconds > SLOW_FSYNC:
        status = "warn" if status == "ok" else status
        advice.append("slow to save: a local disk, or a larger --checkpoint-every")
    return Check(
        name="disk",
        status=status,
        found=f"{text}; a write is safe after {1000 * seconds:.1f} ms",
        advice="; ".join(advice),
        numbers=numbers | {"fsync_seconds": seconds},
    )


def cache() -> Check:
    """See whether what is compiled once can be kept, and whether it is there."""
    from mtrl.envs.metaworld.kernels.compile import FOLDER

    if FOLDER is None:
        return Check(
            name="cache",
            status="warn",
            found="cannot be written: every start compiles anew, 15 s and more",
            advice="XDG_CACHE_HOME=FOLDER names another place",
        )
    is_cold = not any(path.is_file() for path in FOLDER.rglob("*"))
    state = "empty: the first start compiles, which takes 15 s and more" if is_cold else "filled"
    return Check(
        name="cache", status="ok", found=f"{FOLDER.parent}: {state}", numbers={"folder": str(FOLDER), "cold": is_cold}
    )


def rendering() -> Check:
    """Take a picture of a task, in a process of its own."""
    from contextlib import closing

    from mtrl import envs
    from mtrl.envs.metaworld.opengl import check_import
    from mtrl.envs.workers import RenderingError, WorkerError
    from mtrl.video import has_ffmpeg

    try:
        check_import()
        with closing(envs.make("mt1:reach-v3", workers=1)) as env:
            env.reset()
            picture = env.render(width=64, height=64)
    except (RenderingError, WorkerError) as problem:
        why = str(problem).partition("\n")[0]
        return Check(name="rendering", status="warn", found="no pictures", advice=why, numbers={"works": False})
    kinds = "mp4 and GIF" if has_ffmpeg() else "GIF; mp4 needs pip install 'mtrl-aligned[video]'"
    works = bool(picture.std() > 0)
    return Check(
        name="rendering",
        status="ok" if works else "warn",
        found=f"works; videos as {kinds}" if works else "pictures are empty",
        advice="" if works else "another MUJOCO_GL (egl, osmesa) may draw",
        numbers={"works": works},
    )


def _status(found: int, little: int, least: int) -> Literal["ok", "warn", "fail"]:
    return "ok" if found >= little else "warn" if found >= least else "fail"


def _gib(size: int) -> str:
    return f"{size / GIBIBYTE:.1f} GiB"
