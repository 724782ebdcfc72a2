"""What is compiled is kept, and the state of what is kept stops nobody."""

import os
import subprocess
import sys
from pathlib import Path

from mtrl.envs.metaworld import kernels
from mtrl.envs.metaworld.cache import fingerprint


def test_a_folder_chosen_for_numba_is_still_named_by_all_sources(tmp_path):
    code = "from mtrl.envs.metaworld.kernels.compile import FOLDER; print(FOLDER)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    sources = Path(kernels.__file__).parent.rglob("*.py")
    assert Path(run.stdout.strip()) == tmp_path / "mtrl" / f"kernels-{fingerprint(sources)}"
