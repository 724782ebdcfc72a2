"""Sweeps on a real Ray cluster and by submitit's local executor: a killed job, and the same command again."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtrl.checkpoint import by_step
from mtrl.launchers import Job
from tests.test_sweep import TOY, process_of, refusal, starts_in

LAUNCHERS = {"ray": ["--gpus-per-run", "0"], "slurm": ["--slurm-cluster", "local", "--slurm-hours", "0.1"]}
PACKAGES = {"ray": "ray", "slurm": "submitit"}
ONE = ["--aggregators", "mean", "--seeds", "0", "--jobs", "1", "--cpus-per-run", "1"]

every_launcher = pytest.mark.parametrize("launcher", list(LAUNCHERS))


def argv_of(launcher: str) -> list[str]:
    pytest.importorskip(PACKAGES[launcher], reason=f"{PACKAGES[launcher]} of the extra {launcher} is not installed")
    return [*ONE, "--launcher", launcher, *LAUNCHERS[launcher]]


def start(folder: Path, *argv: str) -> subprocess.Popen[str]:
    """Start a sweep in a process of its own, as Ray and submitit expect it."""
    return subprocess.Popen(
        [sys.executable, "-m", "mtrl.sweep", *TOY, "--sweep-dir", str(folder), *argv],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_checkpoint(run_dir: Path, process: subprocess.Popen[str]) -> None:
    while not by_step(run_dir / "checkpoints"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.timeout(300)
@every_launcher
def test_a_killed_job_is_told_and_continued_by_the_same_command(tmp_path, launcher):
    argv, run_dir = argv_of(launcher), tmp_path / "mean-0"
    first = start(tmp_path, *argv)
    wait_for_checkpoint(run_dir, first)
    os.kill(process_of(run_dir), signal.SIGKILL)
    said, _ = first.communicate()
    assert "mean-0: killed by SIGKILL" in said
    assert first.returncode == 1
    second = start(tmp_path, *argv)
    said, _ = second.communicate()
    assert re.search(r"mean-0: continues from step [\d,]+\nmean-0: finished", said)
    assert second.returncode == 0
    assert max(by_step(run_dir / "checkpoints")) == 1600
    assert starts_in(run_dir) == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
@every_launcher
def test_ctrl_c_lets_a_job_save(tmp_path, launcher):
    argv, run_dir = argv_of(launcher), tmp_path / "mean-0"
    process = start(tmp_path, *argv, "--total-steps", "100000")
    wait_for_checkpoint(run_dir, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    saved = max(by_step(run_dir / "checkpoints"))
    assert f"SIGTERM: saved at step {saved:,}" in (run_dir / "output.log").read_text()
    assert f"saved at step {saved:,}" in said
    assert process.returncode == 130


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_local_ray_cluster_listens_on_this_machine_alone_and_shares_a_gpu(tmp_path):
    pytest.importorskip("ray", reason="ray of the extra ray is not installed")
    code = f"""
import os, sys, time
from pathlib import Path
from mtrl.launchers import Job, ray_cluster

def listening():
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
    return {{line[1] for line in lines if line[3] == "0A"}}

before = listening()
os.environ.update(ray_cluster._ENVIRONMENT | ray_cluster._LOOPBACK)  # Ray reads them when it is imported
os.environ["RAY_ADDRESS"] = "127.0.0.1:6399"  # of no cluster: one is started all the same
import ray
ray_init = ray.init
ray.init = lambda *args, **options: ray_init(*args, num_cpus=4, num_gpus=1, **options)
cluster = ray_cluster.RayCluster(None, cpus=1, gpus=0.25)
print(*(address.partition(":")[0] for address in listening() - before))
folder = Path({str(tmp_path)!r})
show = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(1)"
handles = [cluster.start(Job(str(k), (sys.executable, "-c", show), folder / f"{{k}}.log")) for k in range(4)]
while any(handle.poll() is None for handle in handles):
    time.sleep(0.05)
print(*(handle.poll() for handle in handles))
cluster.close()
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    addresses, codes = found.stdout.splitlines()
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert addresses
    assert set(addresses.split()) <= loopback
    assert codes == "0 0 0 0"
    assert [(tmp_path / f"{k}.log").read_text().splitlines()[1] for k in range(4)] == ["0"] * 4


@pytest.mark.slow
def test_a_job_whose_time_is_up_saves_and_asks_to_come_back(tmp_path):
    pytest.importorskip("submitit", reason="submitit of the extra slurm is not installed")
    from mtrl.launchers.process import Process
    from mtrl.launchers.slurm import SlurmTask

    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143)); print('up', flush=True); time.sleep(50)"
    )
    task = SlurmTask(Job("job", (sys.executable, "-c", code), tmp_path / "output.log"))
    task.process = Process(task.job)
    while "up" not in (tmp_path / "output.log").read_text().splitlines():
        assert task.process.poll() is None
    again = task.checkpoint()
    assert task.process.poll() == 143
    assert again.function.job == task.job


@pytest.mark.slow
def test_slurms_warning_to_all_processes_lets_the_job_save(tmp_path):
    pytest.importorskip("submitit", reason="submitit of the extra slurm is not installed")
    job = (
        "import signal, sys, time; signal.signal(15, lambda *_: print('saved') or sys.exit(143)); "
        "print('up', flush=True); time.sleep(50)"
    )
    log = tmp_path / "output.log"
    code = f"""
import signal, sys
from pathlib import Path
from mtrl.launchers import Job
from mtrl.launchers.slurm import SlurmTask
task = SlurmTask(Job("job", (sys.executable, "-c", {job!r}), Path({str(log)!r})))
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(task.checkpoint().function.job.name == "job"))
task()
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    while not log.exists() or "up" not in log.read_text().splitlines():
        assert process.poll() is None
        time.sleep(0.02)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGUSR2)
    os.kill(process.pid, signal.SIGUSR2)
    assert process.wait() == 1
    assert log.read_text().splitlines()[-1] == "saved"


# ---- refusals


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gpus-per-run", "0.25"], "--gpus-per-run has no meaning for --launcher local"),
        (["--launcher", "slurm", "--ray-address", "x"], "--ray-address has no meaning for --launcher slurm"),
        (["--launcher", "ray", "--gpus-per-run", "1.5"], "expected a part of one or a whole number, got 1.5"),
        (["--launcher", "slurm", "--slurm-hours", "0"], "--slurm-hours: expected a positive number"),
    ],
)
def test_flags_that_do_not_fit_are_refused(capsys, tmp_path, argv, message):
    assert message in refusal(capsys, "--env", "toy", "--sweep-dir", str(tmp_path / "new"), *ONE, *argv)
    assert not (tmp_path / "new").exists()


@every_launcher
def test_a_missing_package_is_named_with_its_extra(capsys, monkeypatch, tmp_path, launcher):
    monkeypatch.setitem(sys.modules, PACKAGES[launcher], None)  # what Python itself does with a module it must not find
    said = refusal(capsys, "--env", "toy", "--sweep-dir", str(tmp_path / "new"), *ONE, "--launcher", launcher)
    assert f'--launcher {launcher} needs {PACKAGES[launcher]}: pip install "mtrl-aligned[{launcher}]"' in said
