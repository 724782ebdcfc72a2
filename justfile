# `just check` is what has to pass before a commit; the same lines run in .ci/run.

default: check

check: format lint types layers test

format:
    ruff format

lint:
    ruff check

types:
    pyright

layers:
    lint-imports

test:
    pytest

# everything, the slow tests included
test-all:
    pytest -m "not gpu"

# wheel and sdist, into dist/
build:
    python -m build

# known vulnerabilities of the locked versions; needs the network and `pip install pip-audit`
audit:
    pip-audit -r requirements.lock

train-toy:
    python -m mtrl.train --env toy --aggregator aligned
