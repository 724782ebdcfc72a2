"""What ends a command that has begun its work: one sentence on stderr, and an exit code."""

import sys
from collections.abc import Callable

from mtrl.cli import UsageError, error

EXIT_NONFINITE, EXIT_WORKERS, EXIT_INTERRUPTED = 3, 4, 130


def report_failures(work: Callable[[], None]) -> int:
    """Do the work; return the exit code, having said on stderr what failed."""
    # Imported only after the command line was found right: torch takes seconds.
    from mtrl.envs.workers import WorkerError
    from mtrl.loggers import show_warnings
    from mtrl.nonfinite import NonFiniteError

    show_warnings()
    try:
        work()
    except UsageError as problem:
        error(str(problem))
    except (NonFiniteError, WorkerError) as failure:
        sys.stderr.write(f"\nerror: {failure}\n")
        return EXIT_NONFINITE if isinstance(failure, NonFiniteError) else EXIT_WORKERS
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; nothing was written\n")
        return EXIT_INTERRUPTED
    return 0
