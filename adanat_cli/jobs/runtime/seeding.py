"""Independent random streams from one seed."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a random stream is for: the first of the numbers that seed it.

    Results depend on the values, so that none may change; a new purpose gets a new number. Jobs with a single stream
    (``train-tokenizer``, ``stats``) begin with the run's seed instead.
    """

    NAT_ORDER = 0  # order of the images in an epoch
    NAT_UPDATE = 1  # flips, masks and dropped conditions of an update
    NAT_DROPOUT = 2  # whatever the network draws in an update
    NAT_HELD_OUT = 3  # masks of the held-out images
    NAT_CAPTION = 4  # which caption of an image an epoch shows
    POLICY_EVALUATION = 20  # images whose distance is reported
    POLICY_PICTURES = 21  # images in the pictures of a policy
    TABLE_SEARCH = 22  # images that candidate tables are measured with
    POLICY_LABELS = 30  # classes or prompts of the trajectories
    POLICY_NOISE = 31  # sampling noise of the trajectories
    POLICY_EXPLORATION = 32  # action noise of trajectories; comes after their stream and the seed
    POLICY_MINIBATCHES = 33  # order of the rows in PPO's minibatches
    REWARD_IMAGES = 34  # which images of a rollout the reward learns from
    REWARD_SCORE = 35  # whatever the reward draws to score images
    REWARD_UPDATE = 36  # whatever the reward draws to learn
    REWARD_TRAJECTORIES = 100  # trajectories that only the reward learns from; its update i takes stream 100 + i
    REWARD_WARM_UP = 2**20  # added to the reward's streams while it warms up


class FeatureStream(IntEnum):
    """What a random stream of the feature network is for: the number after the seed."""

    WEIGHTS = 0
    SHIFTS = 1


def stream_seed(*parts: int) -> int:
    """Mix numbers such as (purpose, seed, update, rank) into one seed for PyTorch's generators."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
