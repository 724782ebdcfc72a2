"""Files that save a computation, what they depend on and where they are kept.

Whatever lies in the cache may be deleted at any time: it is computed again. It is the user's own folder, but nothing in
it is trusted: every file begins with a hash of its place and its contents.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

PROCESSOR_FIELDS = {
    "x86": ("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    "ARM": ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
}
"""What Linux says of a processor by which libraries choose between the codes of one function."""

CODE_CHOOSERS = (
    "GLIBC_TUNABLES",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "OPENBLAS_CORETYPE",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
)
"""Environment variables by which libm, NumPy and its linear algebra take another code than the processor's own."""

PACKAGES = ("metaworld", "mujoco", "gymnasium", "numpy", "scipy")
"""What takes part in a reset; some first observations contain a rotation by SciPy."""

SEAL_SIZE = hashlib.sha256().digest_size


def cache_folder(name: str, *, root: str | None = None) -> Path | None:
    """Return this user's folder of that name for what need not be computed again; it exists and can be written.

    Its parent is `mtrl` in `root`, by default in `$XDG_CACHE_HOME`, or in `~/.cache` where that is not set.

    Returns:
        None, with a warning, where there is no such place.
    """
    try:
        folder = Path(root or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtrl" / name
        folder.mkdir(parents=True, exist_ok=True)
    except RuntimeError:  # from Path.home
        warn_not_kept("this user has no home")
        return None
    except OSError as problem:
        warn_not_kept(f"cannot make {problem.filename}: {problem.strerror}")
        return None
    if not os.access(folder, os.W_OK):
        warn_not_kept(f"cannot write in {folder.parent}")
        return None
    return folder


def fingerprint(files: Iterable[Path], facts: str = "") -> str:
    """Return 16 hexadecimal digits that change with the contents of the files and with the facts."""
    digest = hashlib.sha256(facts.encode())
    for file in sorted(files):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def warn_not_kept(problem: str) -> None:
    """Say why the cache cannot be written.

    All warnings come from one line, so that Python shows equal ones of one process once.
    """
    message = f"nothing is kept for the next run, which starts slower: {problem}; XDG_CACHE_HOME names another place"
    warnings.warn(message, RuntimeWarning, stacklevel=1)


@functools.cache
def origin(*sources: str) -> str:
    """Return a fingerprint of what simulations depend on: Meta-World, the machine, and these files beside this one."""
    return fingerprint((Path(__file__).with_name(source) for source in sources), f"{_metaworld()}\n{arithmetic()}")


def arithmetic() -> str:
    """Return what the last bits of floating-point results depend on: packages' versions, system and processor."""
    versions = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    system = [sys.version, platform.machine(), *platform.libc_ver(), platform.mac_ver()[0], *_processor()]
    return "\n".join(versions + system + [f"{name}={os.environ.get(name)}" for name in CODE_CHOOSERS])


class Store:
    """The files of one folder of the cache, by name.

    Nothing here raises for the state of the disk: what cannot be read whole is not there, and after the first file that
    cannot be written, which costs a warning, none is.
    """

    def __init__(self, folder: str) -> None:
        """Take a folder whose name tells apart all that the files' contents depend on, besides their own names."""
        self._name = folder
        self._folder = cache_folder(folder)
        self._can_save = self._folder is not None

    def load(self, name: str) -> bytes | None:
        """Return what was saved under that name; None where nothing was, or where it is damaged or another file's."""
        if self._folder is None:
            return None
        try:
            content = (self._folder / name).read_bytes()
        except OSError:
            return None
        payload = content[SEAL_SIZE:]
        return payload if content[:SEAL_SIZE] == self._seal(name, payload) else None

    def save(self, name: str, payload: bytes) -> None:
        """Keep it under that name, in the place of what is there. Readers find the old file or the new one."""
        if self._folder is None or not self._can_save:
            return
        try:
            descriptor, draft = tempfile.mkstemp(dir=self._folder, prefix=f"{name}.")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(self._seal(name, payload) + payload)
                Path(draft).replace(self._folder / name)
            except OSError:
                Path(draft).unlink()
                raise
        except OSError as problem:
            warn_not_kept(f"cannot write in {self._folder.parent}: {problem.strerror}")
            self._can_save = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let only one process at a time be here, so that the others find what it saves.

        File systems that know no lock of a folder, such as NFS, let all of them in: they do the same work twice.
        """
        with contextlib.ExitStack() as stack:
            if self._folder is not None:
                with contextlib.suppress(OSError):
                    descriptor = os.open(self._folder, os.O_RDONLY)
                    stack.callback(os.close, descriptor)  # which frees the lock, as the end of the process does
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    def _seal(self, name: str, payload: bytes) -> bytes:
        return hashlib.sha256(f"{self._name}/{name}\n".encode() + payload).digest()


@functools.cache
def _metaworld() -> str:
    """Return a fingerprint of the package, which may be edited: contents of code and scenes, sizes of the rest."""
    package = importlib.util.find_spec("metaworld")
    assert package is not None
    assert package.origin is not None
    files = [file for file in Path(package.origin).parent.rglob("*") if file.suffix != ".pyc" and file.is_file()]
    sizes = sorted((file.name, file.stat().st_size) for file in files)
    return fingerprint((file for file in files if file.suffix in {".py", ".xml"}), repr(sizes))


def _processor() -> list[str]:
    """Return what the system says of its first core, as far as it is always the same."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            lines = list(itertools.takewhile(str.strip, file))  # the others' parts follow an empty line
    except OSError:
        return [platform.processor()]
    fields = {name for names in PROCESSOR_FIELDS.values() for name in names}
    return [line for line in lines if line.split(":")[0].strip() in fields]
