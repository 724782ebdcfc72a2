"""Streams of random numbers: named, independent, reproducible."""

import numpy as np
import torch

from mtrl.seeding import copy_generator, load_generator, numpy_generator, seed_sequence, torch_generator

NAMES = [(), ("actor",), ("critic",), ("env",), ("env", 0), ("env", 1), ("env", 0, 1), ("env", 1, 0), (0,), (1,)]


def test_same_seed_and_name_give_the_same_numbers():
    for name in NAMES:
        assert np.array_equal(numpy_generator(3, *name).random(4), numpy_generator(3, *name).random(4))
        first, second = (torch.rand(4, generator=torch_generator(3, *name)) for _ in range(2))
        assert torch.equal(first, second)


def test_every_name_and_every_seed_has_its_own_stream():
    streams = [(seed, *name) for seed in (0, 1, 2**32) for name in NAMES]
    assert len({float(numpy_generator(*stream).random()) for stream in streams}) == len(streams)
    assert len({torch_generator(*stream).initial_seed() for stream in streams}) == len(streams)


def test_streams_are_uncorrelated():
    # 36 pairs of streams of 10000 numbers: correlations have standard deviation 0.01; 5 of them are allowed.
    draws = np.stack([numpy_generator(0, "env", task).standard_normal(10_000) for task in range(9)])
    correlations = np.asarray(np.corrcoef(draws))[np.triu_indices(9, 1)]
    assert np.abs(correlations).max() < 0.05


def test_streams_stay_what_they_are_between_releases():
    # A changed number changes the result of every seed: it belongs into the changelog.
    assert seed_sequence(0, "actor").generate_state(1).tolist() == [803219896]
    assert torch_generator(0, "actor").initial_seed() == 2639049778632070364


def test_a_name_can_be_a_word_or_a_number():
    assert seed_sequence(0, "env", 7).spawn_key[1] == 7


def test_torch_seeds_fit_into_63_bits():
    assert all(0 <= torch_generator(seed, "x").initial_seed() < 2**63 for seed in range(50))


def test_copied_generator_draws_the_same_numbers_and_leaves_the_original_alone():
    generator = torch_generator(0, "a")
    torch.rand(3, generator=generator)
    state = generator.get_state()
    twin = copy_generator(generator)
    drawn = torch.rand(5, generator=twin)
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(torch.rand(5, generator=generator), drawn)


def test_global_streams_are_left_alone():
    torch_before, numpy_before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    torch.rand(3, generator=torch_generator(0, "a"))
    numpy_generator(0, "a").random(3)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert repr(np.random.get_state()) == numpy_before  # noqa: NPY002


def test_state_of_another_kind_of_device_seeds_a_stream_of_its_own():
    # A CUDA generator's state is 16 bytes, a CPU generator's 5056.
    def draw(state):
        generator = torch_generator(0, "stream")
        load_generator(generator, state)
        return torch.rand(3, generator=generator)

    foreign = torch.arange(16, dtype=torch.uint8)
    assert torch.equal(draw(foreign), draw(foreign))
    assert not torch.equal(draw(foreign), draw(foreign + 1))
    own = torch_generator(3, "other").get_state()
    assert torch.equal(draw(own), torch.rand(3, generator=torch_generator(3, "other")))
