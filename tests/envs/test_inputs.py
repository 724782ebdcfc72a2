"""What is refused whatever the environments; shapes and ranges are tested with those that refuse them."""

import numpy as np
import pytest

from mtrl.envs.inputs import check_least, checked_goal
from tests.envs.harness import make_spec


def test_goals_that_are_no_integers_are_refused():
    with pytest.raises(ValueError, match=r"goal is float64 of shape \(3, 2\), expected integers of shape \(3, 2\)"):
        checked_goal(np.zeros((3, 2)), make_spec())


def test_the_first_number_below_the_least_is_named_and_none_stands_for_a_default():
    check_least(1, workers=None, width=1)
    with pytest.raises(ValueError, match=r"^width is 0, expected 1 or more$"):
        check_least(1, workers=None, width=0, height=-1)
