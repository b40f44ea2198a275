"""What an event shows the network."""

import numpy as np
import torch

from retrac.data.config import DatasetConfig
from retrac.data.open import open_dataset
from retrac.training.inputs import training_inputs
from retrac.training.ledger import Ledger

DIGITS = open_dataset(DatasetConfig(dataset="digits", resolution=8, limit=24))
LEDGER = Ledger(0, 24)


def test_images_timesteps_and_noise_are_those_of_the_ledger() -> None:
    batch = np.array([5, 3, 5])
    seen, timesteps, noise = training_inputs(DIGITS, LEDGER, 2, batch, flip=False)
    events = LEDGER.events(2, batch, (1, 8, 8))
    assert torch.equal(seen.clean, DIGITS.tensors(batch))
    assert torch.equal(timesteps, events.timesteps) and torch.equal(noise, events.noise)


def test_images_are_mirrored_left_to_right_where_the_ledger_says_so_and_nowhere_else() -> None:
    every = np.arange(24)
    seen, _, noise = training_inputs(DIGITS, LEDGER, 2, every, flip=True)
    events = LEDGER.events(2, every, (1, 8, 8))
    assert 0 < events.flips.sum() < 24
    for image, plain, mirrored in zip(seen.clean, DIGITS.tensors(every), events.flips, strict=True):
        expected = torch.from_numpy(plain.numpy()[..., ::-1].copy()) if mirrored else plain
        assert torch.equal(image, expected)
    assert torch.equal(noise, events.noise)
