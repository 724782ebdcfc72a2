"""Videos are read back: how many frames, how long, what colours."""

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from mtrl import video
from mtrl.film import Clip
from tests.videos import read_mp4

SIZE = 96


def clip(grey_levels, solved_from=None):
    frames = [np.full((SIZE, SIZE, 3), level, np.uint8) for level in grey_levels]
    return Clip(frames=frames, solved_from=solved_from)


def test_tiles_stand_in_rows_and_turn_green_from_the_frame_that_shows_them_solved():
    clips = [clip([10, 20]), clip([30, 40, 50], solved_from=1), clip([60])]
    frames = list(video.compose(clips, ["a", "b", "c"]))
    assert [frame.shape for frame in frames] == [(2 * SIZE, 2 * SIZE, 3)] * 3
    centres = [
        [int(frame[row, column, 0]) for row, column in ((48, 48), (48, 144), (144, 48), (144, 144))] for frame in frames
    ]
    # a, b, c and no fourth; what has ended stands still
    assert centres == [[10, 30, 60, 0], [20, 40, 60, 0], [20, 50, 60, 0]]
    corners = [[tuple(frame[0, column].tolist()) for column in (0, SIZE)] for frame in frames]
    assert corners == [[video.UNSOLVED] * 2, [video.UNSOLVED, video.SOLVED], [video.UNSOLVED, video.SOLVED]]
    assert all(tuple(frame[-1, 0].tolist()) == video.UNSOLVED for frame in frames)


def test_the_title_is_written_at_the_top_and_solved_at_the_bottom():
    before, after = video.compose([clip([100, 100], solved_from=1)], ["reach-v3"])
    inside = slice(4, -4)
    assert (before[4:16, inside] > 200).any()
    assert (before[24:-4, inside] == 100).all()
    assert (after[72:-4, inside] > 200).any()
    assert (next(video.compose([clip([100])], [""]))[4:16, inside] == 100).all()


def test_a_long_title_fits_into_its_tile():
    (frame,) = video.compose([clip([100]), clip([100])], ["button-press-topdown-v3", ""])
    assert (frame[4:-4, SIZE + 4 : -4] == 100).all()


@pytest.mark.parametrize(("num_tiles", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (10, 4), (50, 8)])
def test_grids_are_about_as_wide_as_high(num_tiles, columns):
    assert video.num_columns(num_tiles) == columns


def moving(num_frames, height=50, width=61):
    rng = np.random.default_rng(0)
    still = rng.integers(0, 255, (height, width, 1), np.uint8).repeat(3, axis=2)
    for index in range(num_frames):
        frame = still.copy()
        frame[10:20, 2 * index : 2 * index + 10] = (200, 0, 0)
        yield frame


def test_gif_has_all_frames_in_real_time_and_one_set_of_colours(tmp_path):
    video.write_gif(tmp_path / "x.gif", moving(7), 80.0)
    found = iio.imread(tmp_path / "x.gif")
    assert found.shape == (7, 50, 61, 3)
    assert (found[3, 15, 10] == (200, 0, 0)).all()
    assert np.abs(found[6].astype(int) - list(moving(7))[6]).mean() < 3  # 256 colours of 200 and red
    with Image.open(tmp_path / "x.gif") as image:
        durations = []
        for index in range(7):
            image.seek(index)
            durations.append(image.info["duration"])
    assert set(durations) <= {10, 20}
    assert sum(durations) == 90  # 7 / 80 s = 87.5 ms, in hundredths


def test_mp4_has_all_frames_and_even_sides(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    video.write_mp4(tmp_path / "x.mp4", moving(7), 20.0)
    found, about = read_mp4(tmp_path / "x.mp4", 50, 62)
    assert len(found) == 7
    assert " 20 fps" in about
    assert "yuv420p" in about  # what browsers play
    red = found[3, 12:18, 8:14].mean((0, 1))
    assert red[0] > 150 > 80 > red[1:].max()
