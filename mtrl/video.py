"""Clips as one video file: tiles side by side, each with its task's name, a green frame from where it is solved."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from mtrl.film import Clip

if TYPE_CHECKING:
    from PIL import ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Frame = UInt8[np.ndarray, "height width 3"]

SOLVED, UNSOLVED = (0, 170, 60), (45, 45, 45)
"""Colours of a tile's border."""

_BORDERS_PER_TILE = 48
_LETTERS_PER_TILE = 17
"""Letters' height, as a part of the tile's."""
_SMALLEST_LETTERS = 7
"""In pixels; smaller ones cannot be read."""

_COLOURS_SAMPLED = 16
"""Frames from which the colours of a GIF are chosen."""

_MP4_QUALITY = 8
"""Of 10: higher than imageio's usual 5, at which small letters blur."""


def has_ffmpeg() -> bool:
    """Return whether mp4 can be written here."""
    if find_spec("imageio_ffmpeg") is None:
        return False
    import imageio_ffmpeg

    try:
        imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:  # its wheel has none for this system, and none is installed
        return False
    return True


def num_columns(num_tiles: int) -> int:
    """Return how many tiles stand side by side: as many as below each other, or one more."""
    return math.ceil(math.sqrt(num_tiles))


def compose(clips: Sequence[Clip], titles: Sequence[str]) -> Iterator[Frame]:
    """Yield the frames of clips that play at once, in rows; the last frame of a shorter clip stands to the end.

    Args:
        clips: At least one, all of one size.
        titles: What is written into each.
    """
    size = len(clips[0].frames[0])
    columns = num_columns(len(clips))
    rows = math.ceil(len(clips) / columns)
    fonts = [_font(title, size) for title in titles]
    for index in range(max(len(clip.frames) for clip in clips)):
        frame = np.zeros((rows * size, columns * size, 3), np.uint8)
        for tile, (clip, title, font) in enumerate(zip(clips, titles, fonts, strict=True)):
            top, left = size * (tile // columns), size * (tile % columns)
            picture = clip.frames[min(index, len(clip.frames) - 1)]
            is_solved = clip.solved_from is not None and index >= clip.solved_from
            frame[top : top + size, left : left + size] = _tile(picture, title, font, is_solved=is_solved)
        yield frame


def _tile(picture: Frame, title: str, font: "Font", *, is_solved: bool) -> Frame:
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    border = max(2, len(picture) // _BORDERS_PER_TILE)
    colour = SOLVED if is_solved else UNSOLVED
    draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=colour, width=border)
    place, edge = (2 * border, 2 * border), max(1, border // 2)
    draw.text(place, title, font=font, fill="white", stroke_width=edge, stroke_fill="black")
    if is_solved:
        below = (2 * border, image.height - 2 * border)
        draw.text(below, "solved", font=font, fill="white", stroke_width=edge, stroke_fill=SOLVED, anchor="ls")
    return np.asarray(image)


def _font(title: str, size: int) -> "Font":
    """Return the largest letters in which the title fits into a tile, none above the usual size."""
    from PIL import ImageFont

    for height in range(max(_SMALLEST_LETTERS, size // _LETTERS_PER_TILE), _SMALLEST_LETTERS, -1):
        font = ImageFont.load_default(height)
        if font.getlength(title) <= size * (1 - 5 / _BORDERS_PER_TILE):
            return font
    return ImageFont.load_default(_SMALLEST_LETTERS)


def write_mp4(path: Path, frames: Iterable[Frame], per_second: float) -> None:
    """Write frames of one size as H.264, which browsers play.

    Raises:
        OSError: They cannot be written.
    """
    import imageio_ffmpeg

    writer = None
    try:
        for frame in frames:
            height, width = frame.shape[:2]
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)))  # H.264 has colours for 2 x 2 pixels
            if writer is None:
                writer = imageio_ffmpeg.write_frames(
                    str(path),
                    (even.shape[1], even.shape[0]),
                    fps=per_second,  # pyright: ignore[reportArgumentType] - becomes text with two decimals
                    quality=_MP4_QUALITY,
                    macro_block_size=2,
                    output_params=["-movflags", "+faststart"],
                )
                writer.send(None)
            writer.send(even)
    finally:
        if writer is not None:
            writer.close()


def write_gif(path: Path, frames: Iterable[Frame], per_second: float) -> None:
    """Write frames of one size as an animated GIF that plays for ever, with one set of colours for all.

    Raises:
        OSError: They cannot be written.
    """
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    sample = images[:: math.ceil(len(images) / _COLOURS_SAMPLED)]
    colours = Image.fromarray(np.concatenate([np.asarray(image) for image in sample])).quantize()
    # Without dithering what stands still stays the same from frame to frame, and takes no space.
    drawn = [image.quantize(palette=colours, dither=Image.Dither.NONE) for image in images]
    drawn[0].save(path, save_all=True, append_images=drawn[1:], duration=_durations(len(drawn), per_second), loop=0)


def _durations(num_frames: int, per_second: float) -> list[int]:
    """Return how long each frame is shown, in milliseconds: whole hundredths of a second, right in their sum."""
    ends = [round(100 * frame / per_second) for frame in range(num_frames + 1)]
    return [10 * max(1, end - start) for start, end in itertools.pairwise(ends)]


WRITERS: dict[str, Callable[[Path, Iterable[Frame], float], None]] = {"mp4": write_mp4, "gif": write_gif}
"""By the ending of the file's name."""
