"""A run on a small disk of its own, which others fill: `python -m tests.small_disk MOUNT_POINT SIZE OUT HIDDEN_DIMS...`

Needs a mount namespace. At one step a file takes all space that is left: the run goes on and cannot save. At a later
step the file is deleted, and the run saves at once. Then the disk is full once more, and the run ends with code 5; it
is continued when there is space again. At the end the run directory is copied to OUT, and a run made beside it that met
none of this.
"""

import contextlib
import io
import math
import shutil
import subprocess
import sys
from pathlib import Path

from mtrl import checkpoint, loggers, train, trainer


class Ballast:
    """A file that takes all space there is."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ballast"

    def fill(self) -> None:
        with self._path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def drop(self) -> None:
        self._path.unlink()


def main(disk: Path, size: str, out: Path, hidden_dims: list[str]) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], check=True)
    loggers.COMPLAINT_SECONDS = math.inf
    trainer.SAVE_AGAIN_SECONDS = 0.0
    run, ballast = disk / "run", Ballast(disk)
    folder = run / "checkpoints"
    flags = [
        *("--env", "toy", "--aggregator", "aligned", "--envs-per-task", "1", "--warmup-steps", "20"),
        *("--network.hidden-dims", *hidden_dims, "--agent.batch-size", "8", "--device", "cpu", "--threads", "1"),
        *("--log-every", "40", "--eval-every", "0", "--checkpoint-every", "100", "--replay.capacity", "60"),
    ]

    def whole_of_step(step: int) -> bool:
        found = checkpoint.latest_whole(folder)
        return found is not None and int(found.name) == step and not list(folder.rglob(".partial*"))

    def recover() -> None:
        assert whole_of_step(200)
        assert list((folder / "replay").iterdir())
        ballast.drop()

    # Vector steps are 4 environment steps. Between 240 and 440 the checkpoints of 300 and 400 fail.
    code, said = run_until_end(
        [*flags, "--total-steps", "600", "--run-dir", str(run)], {240: ballast.fill, 440: recover}
    )
    assert code == 0
    assert said.count("warning: ") == said.count("No space left on device") == 1, said
    assert [int(path.name) for path in checkpoint.by_step(folder).values()] == [440, 500, 600]
    code, said = run_until_end(["--resume", str(run), "--total-steps", "800"], {640: ballast.fill})
    assert code == 5
    assert "cannot be saved" in said
    assert "the last checkpoint is of step 600" in said
    assert whole_of_step(600)
    ballast.drop()
    code, said = run_until_end(["--resume", str(run)], {})
    assert (code, said) == (0, "")
    shutil.copytree(run, out / "run")
    parts = [*flags, "--total-steps", "600", "--run-dir", str(out / "whole")]
    assert run_until_end(parts, {})[0] == 0
    assert run_until_end(["--resume", str(out / "whole"), "--total-steps", "800"], {})[0] == 0
    sys.stdout.write("all as it should be\n")


def run_until_end(flags: list[str], actions: dict) -> tuple[int, str]:
    """Train, calling each action in the vector step that ends at its step; return the code and what stderr was told."""
    step = trainer.Trainer._advance

    def step_and_act(self: trainer.Trainer) -> None:
        step(self)
        if self.step_count in actions:
            actions[self.step_count]()

    trainer.Trainer._advance = step_and_act
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return train.main(flags), said.getvalue()
    finally:
        trainer.Trainer._advance = step


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
