"""Turn one seed into named, independent streams of random numbers.

Every consumer of randomness has a name, so that adding one never shifts the numbers of another.
"""

import os
import zlib

import numpy as np
import torch


def seed_sequence(seed: int, *name: str | int) -> np.random.SeedSequence:
    """Return the seed sequence of the stream `name` under `seed`.

    Words are hashed with CRC-32, numbers (task or environment indices) enter as they are.
    """
    key = tuple(zlib.crc32(part.encode()) if isinstance(part, str) else part for part in name)
    return np.random.SeedSequence(seed, spawn_key=key)


def numpy_generator(seed: int, *name: str | int) -> np.random.Generator:
    """Return a NumPy generator for the stream `name` under `seed`."""
    return np.random.default_rng(seed_sequence(seed, *name))


def torch_generator(seed: int, *name: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator on `device` for the stream `name` under `seed`."""
    state = int(seed_sequence(seed, *name).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(state >> 1)  # manual_seed takes a signed 64-bit number


def load_generator(generator: torch.Generator, state: torch.Tensor) -> None:
    """Continue `generator` where `state`, from `get_state`, was taken.

    The state of another kind of device cannot be continued; the generator is then seeded from it, so that the same
    state still leads to the same numbers.
    """
    state = state.cpu()
    if state.shape == generator.get_state().shape:
        generator.set_state(state)
    else:
        generator.manual_seed(zlib.crc32(state.numpy().tobytes()))


def copy_generator(generator: torch.Generator) -> torch.Generator:
    """Return a generator that will draw the same numbers."""
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin


def make_deterministic() -> None:
    """Let torch use only algorithms that give the same bits every time. To be called before anything runs on a GPU.

    What has no such algorithm raises a RuntimeError from then on.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS: one of the two settings with which it repeats
    torch.use_deterministic_algorithms(True)
    # Else everything allocated is filled with NaN, the whole replay too.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
