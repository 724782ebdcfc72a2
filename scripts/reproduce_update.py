"""Repeat an update that met a number that is not finite: `python scripts/reproduce_update.py RUN/nonfinite/UPDATE.pt`.

The agent is built from RUN/config.yaml and takes state, batch and random streams from the file. Prints what is not
finite.
"""

import argparse
from pathlib import Path

from mtrl import cli
from mtrl.assembly import choose_device, make_agent, read_spec
from mtrl.nonfinite import repeat_update
from mtrl.precision import products_in


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    file = parser.parse_args(argv).file
    if not file.is_file():
        parser.error(f"{file}: no such file; expected RUN/nonfinite/UPDATE.pt")
    try:
        settings = cli.load(file.parents[1])
    except cli.UsageError as problem:
        parser.error(str(problem))
    device = choose_device(settings.trainer.device)
    agent = make_agent(settings, read_spec(settings), device)
    with products_in(settings.trainer.matmul_precision):
        found = repeat_update(file, agent, device)[1]
    print(found or "everything is finite")


if __name__ == "__main__":
    main()
