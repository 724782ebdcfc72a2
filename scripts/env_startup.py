"""How long environments take to start, and how much memory their workers hold, each time in a fresh process."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from scripts.env_variants import stock_arguments

_MEASURE = """
import json, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
who, arguments, num_steps = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])

def pss(process_id):
    lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

start = time.perf_counter()
if who == "mtrl":
    from mtrl import envs, interfaces  # interfaces bring torch
    begin = envs.make
else:
    import gymnasium, metaworld
    begin = gymnasium.make_vec
imported = time.perf_counter()
env = begin(**arguments)
env.reset()
first = time.perf_counter()
processes = env.process_ids if who == "mtrl" else [process.pid for process in env.unwrapped.processes]
import numpy as np
generator = np.random.default_rng(0)
shape = (*env.reset().shape[:-1], 4) if who == "mtrl" else env.action_space.shape
before = list(map(pss, processes)) if num_steps else []
for _ in range(num_steps):
    env.step(generator.uniform(-1, 1, shape).astype(np.float32))
after = list(map(pss, processes)) if num_steps else []
print(json.dumps({"imports": imported - start, "start": first - imported, "before": before, "after": after}))
env.close()
"""


class Start(NamedTuple):
    """What a fresh process found."""

    imports: float
    """Seconds of the imports, those of torch among them where mtrl starts."""
    start: float
    """Seconds from the call that builds the environments until the first observation is there."""
    before: list[int]
    """Proportional set size of each worker after the first observation, in bytes; empty where no step was asked for."""
    after: list[int]
    """The same after the steps."""


def start_native(env_name: str, workers: int, num_steps: int = 0) -> Start:
    """Start the native engine with as many workers, and take some steps."""
    return _measure("mtrl", {"name": env_name, "engine": "native", "workers": workers}, num_steps)


def start_stock(env_name: str, num_steps: int = 0) -> Start:
    """Start what `gymnasium.make_vec` builds with a process per task, and take some steps."""
    made, options = stock_arguments(env_name)
    return _measure("stock", {"id": made, "vector_strategy": "async", **options}, num_steps)


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Let processes started meanwhile keep what they compile and simulate in a folder that is empty at first."""
    kept = {name: os.environ.pop(name, None) for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["XDG_CACHE_HOME"]
            os.environ.update({name: value for name, value in kept.items() if value is not None})


def _measure(who: str, arguments: dict[str, Any], num_steps: int) -> Start:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", _MEASURE, who, json.dumps(arguments), str(num_steps)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    if found.returncode:
        raise RuntimeError(f"a fresh process ended with code {found.returncode}:\n{found.stderr[-2000:]}")
    return Start(**json.loads(found.stdout.splitlines()[-1]))
