"""Filming a run of Meta-World, as it is started: command line in; exit code, file and lines out."""

import os
import subprocess
import sys

import imageio.v3 as iio
import pytest

from mtrl import record, train, video
from mtrl.record import main
from tests.envs.metaworld.test_rendering import why_not
from tests.test_evaluate import unchanged_handlers
from tests.videos import read_mp4

pytestmark = [pytest.mark.mujoco, pytest.mark.timeout(300)]  # the first run compiles

TRAINING = [
    *("--env", "mt10:reach-v3,push-v3", "--total-steps", "16", "--warmup-steps", "4", "--envs-per-task", "1"),
    *("--eval-every", "0", "--checkpoint-every", "0", "--device", "cpu", "--agent.batch-size", "4", "--workers", "1"),
    *("--network.hidden-dims", "8", "--replay.capacity", "100"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    before = dict(os.environ)
    with unchanged_handlers():
        assert train.main([*TRAINING, "--run-dir", str(folder)]) == 0
    os.environ.clear()
    os.environ.update(before)
    return folder


@pytest.fixture(autouse=True)
def same_environment(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")


def error_of(capsys, *argv):
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in argv])
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.skipif(bool(why_not()), reason="no OpenGL")
def test_all_tasks_in_a_grid_and_one_as_a_gif_without_ffmpeg(capsys, run, monkeypatch):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    assert main([str(run), "--every", "250", "--size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "reach-v3, goal 0: not solved",
        "push-v3, goal 0: not solved",
        f"0 of 2 episodes solved; written to {run}/videos/000000000016.gif",
    ]
    found = iio.imread(run / "videos" / "000000000016.gif")
    assert found.shape == (2, 64, 128, 3)  # pictures of the steps 0 and 250; after 500 begins another episode
    assert found[0].std() > 20
    assert (found[0] != found[1]).any()
    assert [path.name for path in (run / "videos").iterdir()] == ["000000000016.gif"]


@pytest.mark.slow  # another process to start and another OpenGL; the doctor draws without MUJOCO_GL in its own test
@pytest.mark.skipif(bool(why_not()), reason="no OpenGL")
def test_as_a_program_without_mujoco_gl_and_display(run):
    pytest.importorskip("imageio_ffmpeg")
    unset = ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    argv = [str(run), "--task", "push-v3", "--every", "400", "--size", "63", "--camera", "topview", "--goals", "2"]
    command = [sys.executable, "-m", "mtrl.record", *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found, _ = read_mp4(run / "videos" / "000000000016-push-v3.mp4", 64, 64)
    assert len(found) == 4  # steps 0 and 400 of either goal; sides are even
    assert found[0].std() > 20


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--task", "reach-v4"], "--task: unknown task of mt10:reach-v3,push-v3 'reach-v4'. Did you mean 'reach-v3'?"),
        (["--camera", "topviev"], "--camera: unknown camera 'topviev'. Did you mean 'topview'?"),
        (["--goals", "51"], "--goals: expected at most 50"),
        (["--every", "0"], "--every: expected at least 1, got 0"),
        (["--checkpoint", "3"], "has no checkpoint of step 3, only of 16"),
        (["--format", "avi"], "--format"),
    ],
)
def test_what_cannot_be_filmed_is_refused_before_anything_starts(capsys, monkeypatch, run, argv, message):
    monkeypatch.setattr(record, "film", None)
    assert message in error_of(capsys, run, *argv)


def test_mp4_without_ffmpeg_names_the_extra(capsys, monkeypatch, run):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    assert "pip install 'mtrl-aligned[video]'" in error_of(capsys, run, "--format", "mp4")


def test_no_opengl_is_code_2_with_what_to_install_and_leaves_no_file(capsys, monkeypatch, run):
    monkeypatch.setenv("MUJOCO_GL", "off")
    before = sorted((run / "videos").iterdir()) if (run / "videos").exists() else []
    assert "apt-get install libegl1" in error_of(capsys, run)
    assert (sorted((run / "videos").iterdir()) if (run / "videos").exists() else []) == before


def test_the_toy_suite_has_nothing_to_see(capsys, tmp_path):
    with unchanged_handlers():
        argv = ["--env", "toy", "--total-steps", "8", "--warmup-steps", "1", "--eval-every", "0", "--device", "cpu"]
        assert train.main([*argv, "--network.hidden-dims", "8", "--run-dir", str(tmp_path / "toy")]) == 0
    assert "there is nothing to see in toy" in error_of(capsys, tmp_path / "toy")
