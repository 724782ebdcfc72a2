"""Videos read back by ffmpeg itself, as a program: nothing of ours, and no pipe is left open."""

import subprocess

import numpy as np


def read_mp4(path, height, width):
    """Return all frames, (frame, height, width, 3), and what ffmpeg says of the file."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), done.stderr.decode()
