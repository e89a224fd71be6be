"""The errors, and what a command line makes of them."""

import pytest

from softlan import errors, installing
from softlan.control.codes import Code, Retry
from softlan.errors import ConfigError, RejectedError, SoftlanError, UnsupportedProtocolError


def test_a_message_is_what_str_gives():
    error = SoftlanError("it broke", hint="mend it")
    assert str(error) == error.message == "it broke"
    assert error.hint == "mend it"


def test_wrong_usage_has_an_exit_code_of_its_own():
    assert ConfigError("no").exit_code == 2
    others = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    assert {kind.exit_code for kind in others if kind is not ConfigError} == {1}
    assert all(issubclass(kind, SoftlanError) for kind in others)


def test_what_a_relay_refuses_until_a_person_changes_something_has_another():
    """Units do not start a part again at it; whoever waits for a place, or for the end of a kick or a ban, is to go on trying."""
    final = {code.value for code in Code if RejectedError(code, "no").exit_code == RejectedError.FINAL}
    assert final == {
        "unsupported-protocol",
        "invalid-hello",
        "invalid-room",
        "key-required",
        "key-wrong",
        "invite-expired",
        "invite-used",
        "gateway-not-allowed",
    }
    assert {RejectedError(code, "no").exit_code for code in Code if code.value not in final} == {1}


@pytest.mark.parametrize("code", Code)
def test_a_rejection_may_be_retried_as_its_code_says(code):
    assert RejectedError(code, "no").retryable == (code.retry is Retry.LATER)


def test_another_version_says_what_is_spoken_here():
    error = UnsupportedProtocolError(7, (1,))
    assert "7" in str(error)
    assert error.code is Code.UNSUPPORTED_PROTOCOL
    assert error.hint


def test_installing_names_this_very_python(monkeypatch):
    monkeypatch.setattr(installing.sys, "executable", "/opt/soft lan/bin/python")
    monkeypatch.setattr(installing.os, "access", lambda *_: True)
    python = '"/opt/soft lan/bin/python" -m pip'
    assert installing.pip_install("softlan[qr]") == f'{python} install "softlan[qr]"'
    monkeypatch.setattr(installing.os, "access", lambda *_: False)
    assert installing.pip_install("--upgrade", "softlan") == f"sudo {python} install --upgrade softlan"
