"""Pictures of a MuJoCo simulation, without a window and without touching the simulation.

OpenGL comes from what the variable MUJOCO_GL names. Where it is unset and there is no display, it is EGL, or OSMesa
where only that is installed; both draw without a GPU as well.

Meta-World's four corner cameras hang upside down: stock's pictures from them are turned by 180 degrees (turned, not
mirrored, so flipping their rows makes the robot left-handed). Here every picture is upright; from the other cameras it
equals stock's.
"""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

import ctypes.util
import importlib
import os
import sys
from typing import Any

import mujoco
import numpy as np
from jaxtyping import UInt8

from mtrl.envs.metaworld.opengl import ADVICE
from mtrl.envs.worker_process import RenderingError

MAX_GEOMS = 1000
"""Things one picture may show, Gymnasium's number; Meta-World's scenes have some forty."""


class Renderer:
    """Makes pictures of one model. Holds an OpenGL context from the first one on."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._opengl: Any = None
        self._context: Any = None  # a MjrContext
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def render(self, data: mujoco.MjData, camera: str, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return what a camera of the model sees.

        Raises:
            RenderingError: There is no OpenGL, or not for pictures of this size.
        """
        self._make_room(width, height)
        self._opengl.make_current()
        self._camera.fixedcamid = self._model.camera(camera).id
        # Where cameras and lights are follows from the bodies; a restored simulation has not worked it out yet.
        mujoco.mj_camlight(self._model, data)
        mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        area = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(area, self._scene, self._context)
        pixels = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, area, self._context)  # the lowest row first
        return np.ascontiguousarray(pixels[:, ::-1] if self._hangs_upside_down(camera) else pixels[::-1])

    def close(self) -> None:
        """Free what OpenGL holds. Safe to call twice."""
        if self._context is not None:
            self._opengl.make_current()
            self._context.free()
        if self._opengl is not None:
            self._opengl.free()
        self._opengl = self._context = None

    def _make_room(self, width: int, height: int) -> None:
        """Have a context for pictures of this size: the one that is there, or a new one in its place."""
        if self._context is not None and width <= self._context.offWidth and height <= self._context.offHeight:
            return
        self.close()
        room = self._model.vis.global_
        usual = room.offwidth, room.offheight
        room.offwidth, room.offheight = max(width, usual[0]), max(height, usual[1])
        try:
            self._opengl = _opengl_context(width, height)
            self._opengl.make_current()
            # Not mjr_resizeOffscreen: where OpenGL refuses the size, it says nothing and pictures are black.
            self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_150)
        except Exception as error:
            self.close()
            raise RenderingError(
                f"cannot make a picture of {width} x {height} pixels with {_name_of_opengl()}: {error!r}. {ADVICE}"
            ) from error
        finally:
            room.offwidth, room.offheight = usual
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def _hangs_upside_down(self, camera: str) -> bool:
        up = self._model.camera(camera).mat0.reshape(3, 3)[:, 1]
        return bool(up[2] < 0)


def _opengl_context(width: int, height: int) -> Any:
    """Return a new OpenGL context, the library's own choice where there is a display."""
    name = _name_of_opengl()
    if name in {"egl", "osmesa"}:
        return importlib.import_module(f"mujoco.{name}").GLContext(width, height)
    from mujoco import gl_context

    return gl_context.GLContext(width, height)


def _name_of_opengl() -> str:
    """Return the way to OpenGL: MUJOCO_GL, or the one that needs no display where there is none."""
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    has_display = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if chosen or has_display:
        return chosen or "the display"
    return "osmesa" if ctypes.util.find_library("OSMesa") and not ctypes.util.find_library("EGL") else "egl"
