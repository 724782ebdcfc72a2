"""plate-slide-back-side-v3: slide the plate out, sideways.

`metaworld.envs.sawyer_plate_slide_back_side_v3.SawyerPlateSlideBackSideEnvV3`.
It differs from plate-slide-back-v3 only in what a reset does.
"""

from mtrl.envs.metaworld.kernels.tasks.plate_slide_back import Scene, evaluate, observe, scene, step

__all__ = ["Scene", "evaluate", "observe", "scene", "step"]
