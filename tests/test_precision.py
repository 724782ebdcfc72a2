"""Products of rounded factors: where they are made, where not, and that a run in them continues exactly."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtrl import evaluate
from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators.system import combine, gramian
from mtrl.precision import has_precision, products_in
from mtrl.train import main
from scripts.compare_runs import everything
from tests.small_runs import CPU, assert_same_state
from tests.test_train import unchanged_process  # noqa: F401 - a fixture

MKLDNN = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
CUDA = torch.backends.cuda.matmul

needs_bfloat16 = pytest.mark.skipif(
    not has_precision(CPU, "bfloat16"), reason="this processor has no products in bfloat16"
)

# Batches and layers large enough for oneDNN: it leaves products of less than 4096 multiplications alone.
ARGV = [
    *("--env", "toy", "--device", "cpu", "--threads", "1", "--aggregator", "aligned", "--network.hidden-dims", "32"),
    *("--agent.batch-size", "32", "--warmup-steps", "15", "--eval-every", "80", "--eval-goals", "1"),
    *("--log-every", "40", "--total-steps", "160"),
]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@needs_bfloat16
def test_factors_are_rounded_to_bfloat16_and_sums_are_not():
    factor = torch.full((64, 64), 1 + 2**-7 + 2**-9)  # 8 significant bits: 1 + 2**-7 remains
    before = MKLDNN.fp32_precision
    assert (factor @ factor)[0, 0].item() == pytest.approx(64 * (1 + 2**-7 + 2**-9) ** 2, rel=1e-6)
    with products_in("bfloat16"):
        # 64 * (1 + 2**-7)**2 = 65.00390625 has 15 significant bits: as a bfloat16 it would be 65.
        assert (factor @ factor == 65.00390625).all()
    assert (factor @ factor)[0, 0].item() == pytest.approx(64 * (1 + 2**-7 + 2**-9) ** 2, rel=1e-6)
    assert MKLDNN.fp32_precision == before


@pytest.mark.parametrize(("precision", "backend", "name"), [("tf32", CUDA, "tf32"), ("bfloat16", MKLDNN, "bf16")])
@pytest.mark.parametrize("user", ["none", "ieee"])
def test_the_setting_before_is_restored_also_after_an_error(precision, backend, name, user):
    before = backend.fp32_precision
    backend.fp32_precision = user
    try:
        with pytest.raises(RuntimeError, match=f"in {name}"), products_in(precision):
            raise RuntimeError(f"in {backend.fp32_precision}")
        assert backend.fp32_precision == user
        with products_in("float32"):  # a user's own setting is kept
            assert backend.fp32_precision == user
    finally:
        backend.fp32_precision = before


@needs_bfloat16
def test_gramian_and_combination_are_the_same_in_bfloat16():
    rows = (random(50, 400, 60), random(50, 7))  # of 32 tasks and more, oneDNN would round the sum over them
    weights = random(50, dtype=torch.float64)
    products, direction = gramian(rows), combine(rows, weights)
    with products_in("bfloat16"):
        plain = weights.float()[None] @ rows[0].flatten(1)
        assert (plain.view(400, 60) - direction[0]).norm() > 1e-3 * direction[0].norm()
        assert torch.equal(gramian(rows), products)
        assert all(map(torch.equal, combine(rows, weights), direction))
        assert MKLDNN.fp32_precision == "bf16"


def test_a_cpu_has_no_tf32():
    assert has_precision(CPU, "float32")
    assert not has_precision(CPU, "tf32")
    factor = random(64, 64)
    plain = factor @ factor
    with products_in("tf32"):
        assert torch.equal(factor @ factor, plain)


@pytest.mark.gpu
def test_a_gpu_has_tf32_and_no_bfloat16():
    device = torch.device("cuda")
    assert has_precision(device, "tf32")
    assert not has_precision(device, "bfloat16")
    size = 1024  # small products may stay in float32
    factor = torch.full((size, size), 1 + 2**-10 + 2**-12, device=device)  # 11 significant bits: 1 + 2**-10 remains
    rows, weights = (random(50, 400, 60).to(device),), random(50, dtype=torch.float64).to(device)
    products, direction = gramian(rows), combine(rows, weights)
    with products_in("tf32"):
        torch.testing.assert_close(
            factor @ factor, torch.full_like(factor, size * (1 + 2**-10) ** 2), rtol=1e-6, atol=0
        )
        assert torch.equal(gramian(rows), products)
        assert torch.equal(combine(rows, weights)[0], direction[0])
    torch.testing.assert_close(
        factor @ factor, torch.full_like(factor, size * (1 + 2**-10 + 2**-12) ** 2), rtol=1e-6, atol=0
    )


def test_a_container_that_rounds_by_default_does_not_round_runs(tmp_path):
    code = f"""
import torch
from mtrl.train import main
before = torch.backends.cuda.matmul.fp32_precision
assert main([*{ARGV!r}, "--run-dir", {str(tmp_path / "run")!r}]) == 0
print(before, torch.backends.cuda.matmul.fp32_precision)
"""
    environment = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "tf32 ieee"


def run(folder: Path, *argv: str) -> dict:
    """Run; return every part of the last checkpoint."""
    assert main([*ARGV, "--run-dir", str(folder), *argv]) == 0
    return everything(folder)


@needs_bfloat16
def test_a_run_in_bfloat16_learns_something_else_and_continues_exactly(tmp_path):
    rounded = ("--matmul-precision", "bfloat16")
    whole = run(tmp_path / "whole", *rounded)
    run(tmp_path / "parts", *rounded, "--total-steps", "80")
    assert main(["--resume", str(tmp_path / "parts"), "--total-steps", "160"]) == 0
    assert_same_state(whole, everything(tmp_path / "parts"))
    plain = run(tmp_path / "plain")
    weights, others = (parts["agent"]["critic"]["shared"] for parts in (whole, plain))
    differences = [float((weights[name] - others[name]).norm() / others[name].norm()) for name in weights]
    assert 1e-6 < max(differences) < 0.5


@needs_bfloat16
def test_only_updates_are_rounded(tmp_path, monkeypatch):
    seen: dict[str, set[str]] = {}

    def note(name: str) -> None:
        method = getattr(MTSAC, name)

        def noted(self, *args):
            seen.setdefault(name, set()).add(MKLDNN.fp32_precision)
            return method(self, *args)

        monkeypatch.setattr(MTSAC, name, noted)

    for name in ("update", "act", "act_deterministic", "diagnose", "transference"):
        note(name)
    run(tmp_path / "run", "--matmul-precision", "bfloat16", "--transference-every", "5")
    assert evaluate.main([str(tmp_path / "run"), "--goals", "1", "--device", "cpu"]) == 0
    assert seen.pop("update") == {"bf16"}  # of the throw-away agent too whose updates are timed
    assert len(seen) == 4
    assert set().union(*seen.values()) == {MKLDNN.fp32_precision} != {"bf16"}


def without_bfloat16(*argv: str) -> subprocess.CompletedProcess[str]:
    """Train as on a processor without such products."""
    command = [sys.executable, "-m", "mtrl.train", *argv]
    old = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    return subprocess.run(command, cwd=Path(__file__).parents[1], env=old, capture_output=True, text=True, check=False)


def test_a_processor_without_bfloat16_refuses_it_and_continues_in_float32(tmp_path):
    refused = without_bfloat16(*ARGV, "--matmul-precision", "bfloat16", "--run-dir", str(tmp_path / "new"))
    assert refused.returncode == 2
    expected = "error: --matmul-precision: expected float32, which this processor has, got 'bfloat16'\n"
    assert refused.stderr == expected
    assert not (tmp_path / "new").exists()
    folder = tmp_path / "run"
    run(tmp_path / "begun", "--total-steps", "80")
    shutil.copytree(tmp_path / "begun", folder)  # this process holds the lock of its own run
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("matmul_precision: float32", "matmul_precision: bfloat16"))
    continued = without_bfloat16("--resume", str(folder), "--total-steps", "160")
    assert continued.returncode == 0, continued.stderr
    assert "this processor has no products in bfloat16, with which the run began: it goes on in float32" in (
        continued.stdout + continued.stderr
    )
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 160
