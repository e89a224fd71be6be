"""What a ping's result says, without pinging."""

import pytest

from softlan.lab.probes import PingResult


def test_a_ping_is_good_when_every_one_was_answered() -> None:
    assert PingResult(2, (0.01, 0.02)).good
    assert not PingResult(2, (0.01,)).good
    assert not PingResult(2, ()).good


def test_a_ping_is_neither_true_nor_false() -> None:
    for result in (PingResult(1, (0.01,)), PingResult(1, ())):
        with pytest.raises(TypeError, match="good"):
            assert result
