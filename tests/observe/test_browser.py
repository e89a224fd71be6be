"""The page in headless Chromium, with 200 made-up peers in 30 rooms: on a phone, without a mouse, in the dark."""

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browser import Browser, find, open_browser

from softlan.lab.testing import skip

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ALL_ROOMS = "document.querySelectorAll('#room-list > li').length === 30"
FOCUSED = "(e => e.id || e.className || e.tagName)(document.activeElement)"


@pytest.fixture(scope="module")
def page():
    """The address of the synthetic relay's page."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(HERE / "synthetic.py"), str(port)])
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def chromium():
    if find() is None:
        skip("chromium is not installed")
    with open_browser() as browser:
        yield browser


def press_until(browser: Browser, wanted: str, limit: int = 20) -> list[str]:
    """Press Tab until the focus is where an expression says; give where it was on the way."""
    passed = []
    for _ in range(limit):
        browser.press("Tab")
        passed.append(browser.ask(FOCUSED))
        if browser.ask(wanted):
            return passed
    pytest.fail(f"the focus went {passed}")


def test_it_shows_everybody_and_goes_on(chromium, page, tmp_path):
    chromium.look(page)
    chromium.until(ALL_ROOMS)
    assert chromium.ask("document.getElementById('peers').textContent") == "200"
    assert chromium.ask("document.getElementById('connection').className") == "connection live"
    assert chromium.ask("document.querySelectorAll('#drops tbody tr').length") == 5
    before = chromium.ask("latest.at")
    chromium.until(f"latest.at > {before}")
    chromium.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert chromium.problems == []


def test_it_says_when_the_numbers_stand_still(chromium, page):
    chromium.look(page)
    chromium.until(ALL_ROOMS)
    chromium.ask("window.real = ask")
    chromium.ask("ask = async (path) => (path === '/api/state' ? latest : window.real(path))")
    chromium.until("document.getElementById('connection').className === 'connection stale'")
    assert "stand still" in chromium.ask("document.getElementById('connection').textContent")
    chromium.ask("ask = window.real")
    chromium.until("document.getElementById('connection').className === 'connection live'")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 375, 1280])
def test_nothing_is_wider_than_the_window(chromium, page, width, dark):
    chromium.look(page, width=width, height=812, dark=dark)
    chromium.until(ALL_ROOMS)
    chromium.ask("document.querySelectorAll('#room-list details').forEach((d) => { d.open = true })")
    chromium.until("document.querySelectorAll('.inside tbody tr').length === 200")
    assert chromium.ask("document.documentElement.scrollWidth") <= width
    light = chromium.ask(
        "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)[0]"
    )
    assert (light < 64) == dark


def test_it_is_used_without_a_mouse(chromium, page):
    chromium.look(page)
    chromium.until(ALL_ROOMS)
    first = press_until(chromium, "document.activeElement.className === 'skip'", 1)
    assert first == ["skip"]
    assert chromium.ask("document.activeElement.getBoundingClientRect().top >= 0") or chromium.until(
        "document.activeElement.getBoundingClientRect().top >= 0"
    ), "the skip link is seen when it has the focus"
    chromium.press("Enter")
    chromium.until("location.hash === '#rooms'")
    passed = press_until(chromium, "document.activeElement.tagName === 'SUMMARY'")
    assert passed[:2] == ["find", "order"]
    chromium.press("Enter")
    chromium.until("document.querySelector('#room-list details').open")
    chromium.until("document.querySelectorAll('.inside tbody tr').length > 0")
    assert chromium.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    # The room's box cuts off what is around the line.
    ring = "(style => parseFloat(style.outlineOffset) + parseFloat(style.outlineWidth))"
    assert chromium.ask(f"{ring}(getComputedStyle(document.activeElement))") <= 0
    # The focus stays where it is while numbers change and rooms change their places.
    chromium.ask("window.held = document.activeElement")
    chromium.ask(
        "{ const o = document.getElementById('order'); o.value = 'traffic'; o.dispatchEvent(new Event('change')) }"
    )
    before = chromium.ask("latest.at")
    chromium.until(f"latest.at > {before}")
    assert chromium.ask("document.activeElement === window.held")
    assert chromium.ask("document.querySelector('#room-list details[open]') !== null")


def test_rooms_are_found_and_ordered(chromium, page):
    chromium.look(page)
    chromium.until(ALL_ROOMS)
    chromium.ask("document.getElementById('find').focus()")
    for key in "orbit":
        chromium.press(key)
    chromium.until("document.querySelectorAll('#room-list > li').length < 30")
    names = chromium.ask("[...document.querySelectorAll('.code')].map((e) => e.textContent)")
    assert names
    assert all("ORBIT" in name for name in names)
    chromium.press("x")
    chromium.until("!document.getElementById('no-rooms').hidden")


def test_what_is_read_aloud(chromium, page):
    chromium.look(page)
    chromium.until(ALL_ROOMS)
    assert chromium.ask("document.documentElement.lang") == "en"
    nameless = """[...document.querySelectorAll('input, select, button, a, summary, svg[role=img], section')].filter((e) =>
        !(e.labels && e.labels.length) && !e.textContent.trim() && !e.getAttribute('aria-labelledby')).length"""
    assert chromium.ask(nameless) == 0
    assert "in " in chromium.ask(
        "document.getElementById(document.getElementById('rates').getAttribute('aria-labelledby')).textContent"
    )
    assert chromium.ask("document.querySelectorAll('[role=status]').length") == 1


def test_colours_can_be_told_apart(chromium, page):
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text, on the page and on cards, in both schemes."""
    ratio = """(() => {
        const style = getComputedStyle(document.documentElement);
        const light = (name) => {
            const value = style.getPropertyValue(name).trim().slice(1);
            const hex = value.length === 3 ? [...value].map((c) => c + c).join('') : value;
            const [r, g, b] = [0, 2, 4].map((n) => parseInt(hex.slice(n, n + 2), 16) / 255)
                .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        return ['--text', '--quiet', '--in', '--out', '--bad', '--good'].flatMap((ink) => ['--back', '--card'].map((paper) => {
            const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
            return [ink, paper, (a + 0.05) / (b + 0.05)];
        }));
    })()"""
    for dark in (False, True):
        chromium.look(page, dark=dark)
        chromium.until(ALL_ROOMS)
        assert [(ink, paper, found) for ink, paper, found in chromium.ask(ratio) if found < 4.5] == []


def test_a_silent_relay_is_told_of(chromium, page):
    chromium.look(page)
    chromium.until(ALL_ROOMS)
    chromium.ask("window.fetch = () => Promise.reject(new Error('gone'))")
    chromium.until("document.getElementById('connection').classList.contains('stale')")
    assert chromium.ask("document.getElementById('peers').textContent") == "200"
