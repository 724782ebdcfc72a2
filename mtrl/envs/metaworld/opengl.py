"""Whether OpenGL can be had here. Known before MuJoCo is imported, which needs what MUJOCO_GL names to be there."""

import os
import warnings

from mtrl.envs.worker_process import RenderingError

ADVICE = (
    "Without a display, pictures need EGL (Debian and Ubuntu: apt-get install libegl1 libegl-mesa0; beside NVIDIA's "
    "driver libegl1 alone) or OSMesa (libosmesa6); MUJOCO_GL=egl or MUJOCO_GL=osmesa chooses"
)


def check_import() -> None:
    """Import MuJoCo.

    Raises:
        RenderingError: It cannot be imported with the OpenGL that the variable MUJOCO_GL names.
    """
    if "MUJOCO_GL" not in os.environ:
        return
    try:
        import mujoco  # noqa: F401
    except Exception as problem:  # whatever PyOpenGL raises where a library is missing
        raise RenderingError(
            f"MUJOCO_GL is {os.environ['MUJOCO_GL']}, which fails here: {problem!r}. {ADVICE}"
        ) from problem


def do_without() -> None:
    """Import MuJoCo in any case: where what MUJOCO_GL names fails, warn, and turn pictures off for later processes too.

    Nobody who only trains needs OpenGL, and many machines have the variable set once and for all.
    """
    try:
        check_import()
    except RenderingError as problem:
        warnings.warn(f"going on without pictures: {problem}", stacklevel=4)
        os.environ["MUJOCO_GL"] = "off"
        import mujoco  # noqa: F401
