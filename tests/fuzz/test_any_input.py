"""A few hundred inputs for everything on the Python side that reads what others wrote; `./dev fuzz control SECONDS` goes on for longer."""

import pytest
from hypothesis import HealthCheck, given, settings
from targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_any_input(name):
    strategy, check = TARGETS[name]
    settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))(
        given(strategy)(check)
    )()
