import io

import pytest

from softlan.lab.screen import Screen, State


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def fill(out: io.StringIO) -> Screen:
    async with Screen(["ping", "pong"], out) as screen:
        screen.table = [["peer", "frames"], ["ann", "7"]]
        for row, good in zip(screen.rows, (True, False), strict=True):
            screen.start(row)
            screen.finish(row, good, "5 of 5")
        screen.finish_table()
    return screen


async def test_plain_lines_without_a_terminal() -> None:
    out = io.StringIO()
    await fill(out)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("ok   ping")
    assert "5 of 5" in lines[0]
    assert lines[1].startswith("FAIL pong")
    assert lines[-1].split() == ["ann", "7"]
    assert "\x1b" not in out.getvalue()


async def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    await fill(out)
    assert "\x1b" not in out.getvalue()


async def test_a_terminal_is_redrawn_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    screen = await fill(out)
    assert out.getvalue().startswith("\x1b[?25l")
    assert out.getvalue().endswith("\x1b[?25h")
    assert [row.state for row in screen.rows] == [State.GOOD, State.BAD]
    assert "\x1b[32m✓\x1b[0m" in out.getvalue()
