"""What scripts/compare_precision.py makes of runs: by hand, and of a real one."""

import pytest

from mtrl.precision import has_precision
from mtrl.train import main
from scripts.compare_precision import ENVS, METHODS, PRECISIONS, direction_errors, learning_table, runs_of
from scripts.compare_precision import transference_errors as transference
from tests.small_runs import CPU
from tests.test_toy_claims import alike, write_run
from tests.test_train import unchanged_process  # noqa: F401 - a fixture


def test_changes_are_of_runs_of_one_seed(tmp_path):
    rates = {("float32", 0): (0.0, 0.5), ("float32", 1): (0.5, 0.75), ("bfloat16", 0): (0.25, 0.5)}
    groups = {}
    for group in ((env, precision, method) for env in ENVS for precision in PRECISIONS for method in METHODS):
        groups[group] = runs_of(tmp_path, *group, range(2))
        for seed, run in enumerate(groups[group]):
            evaluations = rates.get((group[1], seed), (0.75, 0.25)) if group[2] == "mean" else (0.5, 0.5)
            write_run(run.directory, (), [alike(rate) for rate in evaluations])
    lines = learning_table(groups)
    assert lines[3] == "| toy | aligned | 2 | 0.50 | 0.50 | 0.00 | 0.50 | 0.50 | 0.00 | 0.50 | 0.50 | 0.00 |"
    cells = lines[2].split(" | ")[2:]
    # last: 0.5 and 0.75 become 0.5 and 0.25; best stay the same; averages: 0.25 and 0.625 become 0.375 and 0.5
    found = [cell.split()[0] for cell in cells[1:]]
    assert found == ["0.62", "0.38", "-0.25", "0.62", "0.62", "0.00", "0.44", "0.44", "0.00"]
    assert cells[3] == "-0.25 (-1.00 to 1.00)"  # 12.7 times the standard error, 0.25, cut
    assert cells[6] == "0.00"


@pytest.mark.skipif(not has_precision(CPU, "bfloat16"), reason="this processor has no products in bfloat16")
def test_directions_are_off_by_what_products_are_rounded_by(tmp_path):
    argv = ["--env", "toy", "--aggregator", "aligned", "--device", "cpu", "--warmup-steps", "20", "--eval-every", "0"]
    assert main([*argv, "--total-steps", "120", "--log-every", "120", "--run-dir", str(tmp_path / "run")]) == 0
    found = direction_errors(tmp_path / "run", 3)
    assert found.keys() == set(METHODS)
    for errors in (one for method in METHODS for one in found[method]):
        assert errors.condition >= 1
        assert errors.float32 < 1e-4 < errors.bfloat16 < errors.other_batch
        assert 1e-3 < errors.gradients < 0.5
    assert all(1e-4 < off < 1 for off, _ in transference(tmp_path / "run", 3))
