"""What a run tells of itself: to the person before it, and to files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtrl.evaluator import Evaluation
from mtrl.loggers import Complaints, Console, JsonLines, TensorBoard, Values
from mtrl.timing import Rates, Stopwatch


class Recorder:
    """Writes the records of one run to the terminal, to metrics.jsonl and for TensorBoard."""

    def __init__(
        self,
        run_dir: Path,
        task_names: Sequence[str],
        total_steps: int,
        stopwatch: Stopwatch,
        step_count: int,
        update_count: int,
        sizes: Mapping[str, int],
    ) -> None:
        """Open the files.

        Args:
            run_dir: Where they are.
            task_names: In the order of the values.
            total_steps: Budget of the run.
            stopwatch: Knows what time was spent on.
            step_count: Environment steps so far.
            update_count: Updates so far.
            sizes: What `flush` returned when the checkpoint was written that the run continues from. Records of a run
                that got further are dropped, all where there is none.

        Raises:
            OSError: The files cannot be opened.
        """
        self._console = Console(total_steps, task_names)
        self._complaints = Complaints(self._console.warn)
        self._loggers = (
            JsonLines(run_dir, task_names, sizes, self.complain),
            TensorBoard(run_dir, task_names, sizes, step_count, self.complain),
        )
        self._rates = Rates(step_count, update_count)
        self._stopwatch = stopwatch

    def say(self, line: str) -> None:
        """Tell the person something."""
        self._console.line(line)

    def complain(self, problem: OSError) -> None:
        """Tell the person of a file that cannot be written while the run goes on, at most once a minute."""
        self._complaints.add(problem)

    def status(self, step_count: int, update_count: int) -> None:
        """Show how far the run is."""
        self._console.status(step_count, update_count)

    def training(self, step_count: int, update_count: int, values: dict[str, float | np.ndarray]) -> None:
        """Write a record of training; speed is added to it."""
        self._console.training(np.asarray(values["train_success"]))
        self._write("train", step_count, values | self._rates.since_last(step_count, update_count, self._stopwatch))

    def evaluation(self, step_count: int, result: Evaluation) -> None:
        """Write a record of an evaluation."""
        success, returns = result.success.mean(1), result.returns.mean(1)
        self._write(
            "evaluation",
            step_count,
            {
                "success": success,
                "success/mean": float(success.mean()),
                "success/worst": float(success.min()),
                "success_at_end": result.success_at_end.mean(1),
                "return": returns,
                "return/mean": float(returns.mean()),
            },
        )
        self._console.evaluation(step_count, success, returns)

    def flush(self) -> dict[str, int]:
        """Return the sizes of all files by name when all records are on the disk.

        Raises:
            OSError: They do not fit or cannot be written; it names the file.
        """
        return {name: size for logger in self._loggers for name, size in logger.flush().items()}

    def close(self) -> None:
        """Close the files."""
        for logger in self._loggers:
            logger.close()

    def _write(self, kind: str, step_count: int, values: Values) -> None:
        for logger in self._loggers:
            logger.write(kind, step_count, values)
