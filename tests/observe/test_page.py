"""The page's application, without a browser: who may look, what is answered, and what is never said."""

import asyncio
import contextlib
import json
import socket

import httpx
import pytest
from synthetic import Synthetic

from softlan.config import HostPort
from softlan.errors import ConfigError, SoftlanError
from softlan.observe.page.app import make_app
from softlan.observe.page.gate import COOKIE, Gate
from softlan.observe.page.options import PageOptions, page_options, parse_page_address, read_token
from softlan.observe.page.sampler import Sampler
from softlan.observe.page.server import PageServer

TOKEN = "a-token-of-twenty-five-ch"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def client(token=None, source=None, host="localhost:8080"):
    source = source or Synthetic(rooms=3, peers=9)
    app = make_app(source, Sampler(source.snapshot), token)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}")


async def test_what_there_is():
    async with client() as web:
        kinds = {
            "/": "text/html",
            "/page.css": "text/css",
            "/page.js": "text/javascript",
            "/icon.svg": "image/svg+xml",
            "/api/state": "application/json",
            "/api/history": "application/json",
            "/metrics": "text/plain",
            "/healthz": "text/plain",
        }
        for path, kind in kinds.items():
            answer = await web.get(path)
            assert answer.status_code == 200, path
            assert answer.headers["content-type"].startswith(kind)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'")
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
        state = (await web.get("/api/state")).json()
        assert (state["peer_count"], len(state["rooms"])) == (9, 3)
        assert (await web.get("/healthz")).text == "ok\n"


async def test_nothing_else():
    async with client() as web:
        assert (await web.get("/static/../app.py")).status_code == 404
        assert (await web.get("/etc/passwd")).status_code == 404
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert (await web.request(method, "/api/state")).status_code == 405


async def test_no_address_of_a_player_is_told():
    source = Synthetic(rooms=2, peers=6)
    addresses = [
        peer["address"].split(":")[0] for room in source.snapshot()["rooms"] for peer in room["peers"]
    ]
    async with client(source=source) as web:
        for path in ("/", "/api/state", "/api/history", "/metrics"):
            text = (await web.get(path)).text
            assert not any(address in text for address in addresses)


async def test_a_relay_that_does_not_serve_is_not_well():
    class Closing(Synthetic):
        async def healthy(self):
            return False

    async with client(source=Closing(1, 1)) as web:
        assert (await web.get("/healthz")).status_code == 503


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "[::2]:1", ""]
)
async def test_a_foreign_name_gets_nothing(host):
    async with client() as web:
        answer = await web.get("/api/state", headers={"host": host})
        assert answer.status_code == 421
        assert "rooms" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "127.3.2.1", "[::1]:8080"])
async def test_this_machines_names_do(host):
    async with client() as web:
        assert (await web.get("/api/state", headers={"host": host})).status_code == 200


async def test_a_token_guards_everything_but_health():
    async with client(TOKEN, host="relay.example.org") as web:
        for path in ("/api/state", "/api/history", "/metrics"):
            for headers in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": TOKEN},
                {"cookie": f"{COOKIE}={TOKEN}"},
            ):
                answer = await web.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
            assert (await web.get(path, headers=BEARER)).status_code == 200
        assert (await web.get("/healthz")).status_code == 200
        assert (await web.get("/")).headers["location"] == "/login"


async def test_a_browser_shows_the_token_once(monkeypatch):
    monkeypatch.setattr("softlan.observe.page.app._WRONG_TOKEN_S", 0.0)
    async with client(TOKEN, host="relay.example.org") as web:
        assert "Token" in (await web.get("/login")).text
        wrong = await web.post("/login", data={"token": "wrong"})
        assert (wrong.status_code, "not the token" in wrong.text) == (403, True)
        assert "set-cookie" not in wrong.headers
        right = await web.post("/login", data={"token": TOKEN})
        assert (right.status_code, right.headers["location"]) == (303, "/")
        cookie = right.headers["set-cookie"]
        assert TOKEN not in cookie
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        assert (await web.get("/api/state")).status_code == 200
        assert (await web.get("/login")).status_code == 303


async def test_guesses_at_the_token_wait_and_are_few_at_once(monkeypatch):
    monkeypatch.setattr("softlan.observe.page.app._WRONG_TOKEN_S", 0.5)
    async with client(TOKEN, host="relay.example.org") as web:
        guesses = [web.post("/login", data={"token": f"wrong {n}"}) for n in range(20)]
        answers = [answer.status_code for answer in await asyncio.gather(*guesses)]
        assert (answers.count(403), answers.count(429)) == (8, 12)
        assert (await web.post("/login", data={"token": TOKEN})).status_code == 303


async def test_a_form_without_end_is_not_read():
    async with client(TOKEN) as web:
        assert (await web.post("/login", content=b"token=" + b"x" * 100_000)).status_code == 413
        assert (await web.post("/login", content=b"\xff\xfe&&&=====")).status_code in (403, 413)


async def test_a_form_of_anything_is_no_news(monkeypatch, caplog):
    monkeypatch.setattr("softlan.observe.page.app._WRONG_TOKEN_S", 0.0)
    body = b"a&b&c&d&e" + b"&" * 4000
    head = b"POST /login HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    async with bounded(monkeypatch) as server:
        assert (await answer_to(server, head % len(body) + body)).startswith(b"HTTP/1.1 403 ")
    assert caplog.text == ""


def test_another_relays_cookie_is_worth_nothing():
    assert not Gate(TOKEN).admits({}, {COOKIE: Gate(TOKEN).cookie})


def test_addresses():
    assert parse_page_address("8080") == HostPort("127.0.0.1", 8080)
    assert parse_page_address("localhost:80") == HostPort("127.0.0.1", 80)
    assert parse_page_address("[::1]:80") == HostPort("::1", 80)
    assert parse_page_address("192.0.2.1:80") == HostPort("192.0.2.1", 80)
    for wrong in ("8080/udp", "", "relay.example.org:80", "70000", "::1:80"):
        with pytest.raises(ConfigError):
            parse_page_address(wrong)


def test_other_machines_need_a_token(tmp_path):
    assert page_options(None, None) is None
    with pytest.raises(ConfigError, match="open to everybody"):
        page_options("192.0.2.1:8080", None)
    with pytest.raises(ConfigError, match="for the page"):
        page_options(None, tmp_path / "token")
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    assert page_options("0.0.0.0:8080", file) == PageOptions(HostPort("0.0.0.0", 8080), TOKEN)


@pytest.mark.parametrize(
    "content", [b"", b"short\n", b"two lines of token\nof which one is too many", b"\xff" * 20, b"x" * 600]
)
def test_tokens_that_are_none(tmp_path, content):
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        read_token(file)
    assert "urandom" in refusal.value.hint


def test_a_token_others_can_read_is_told_of(tmp_path, caplog):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    assert read_token(file) == TOKEN
    assert [record.event.value for record in caplog.records] == ["page.exposed"]
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "case",
    [(0o440, True, False), (0o440, False, True), (0o444, True, True), (0o460, True, True)],
)
def test_what_systemd_hands_out_is_its_services_alone(tmp_path, caplog, monkeypatch, case):
    """It is read by way of an access control list, whose mask shows as the group's right to read."""
    mode, within, told = case
    given = tmp_path / ("credentials" if within else "elsewhere")
    given.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (given / "token").write_text(TOKEN)
    (given / "token").chmod(mode)
    read_token(given / "token")
    assert [record.event.value for record in caplog.records] == ["page.exposed"] * told


def bounded(monkeypatch, connections=64, request_s=60.0, source=None):
    """A page's server with bounds of the test's own."""
    monkeypatch.setattr("softlan.observe.page.server._CONNECTIONS", connections)
    monkeypatch.setattr("softlan.observe.page.server._REQUEST_S", request_s)
    return PageServer(PageOptions(HostPort("127.0.0.1", 0), None), source or Synthetic(2, 4))


async def connected(server):
    return await asyncio.open_connection(server.address.host, server.address.port)


async def answer_to(server, said):
    """All that comes back to these bytes, until the server hangs up; nothing where it does so with a reset."""
    reader, writer = await connected(server)
    with contextlib.suppress(ConnectionError):
        writer.write(said)
        await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        return b""
    finally:
        writer.close()


GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"


async def test_the_server_takes_so_many_connections(monkeypatch):
    async with bounded(monkeypatch, connections=4) as server:
        assert (await answer_to(server, GET + b"\r\n")).startswith(b"HTTP/1.1 200 ")
        silent = [await connected(server) for _ in range(4)]
        assert not (await answer_to(server, GET + b"\r\n"))
        for reader, writer in silent:
            assert not reader.at_eof(), "who was there first stays"
            writer.close()
        # The server sees them go in its own time.
        for _ in range(1000):
            if (await answer_to(server, GET + b"\r\n")).startswith(b"HTTP/1.1 200 "):
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("it never served again")


async def test_who_asks_nothing_is_hung_up_on(monkeypatch):
    async with bounded(monkeypatch, request_s=0.3) as server:
        silent = [await connected(server) for _ in range(8)]
        silent[0][1].write(GET)  # half a request is none
        for reader, writer in silent:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 30) == b""
            writer.close()


async def until_hung_up_on(server, said, more=b""):
    """Connect, say something, say more once something has come back, and read on until the server hangs up."""
    reader, writer = await connected(server)
    writer.write(said)
    with contextlib.suppress(ConnectionError):
        if more:
            assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 200 ")
            writer.write(more)
        await asyncio.wait_for(reader.read(), 30)
    writer.close()


ASK = b"GET /page.css HTTP/1.1\r\nhost: localhost\r\n\r\n"
HALF_A_FORM = b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nto"


@pytest.mark.parametrize(("said", "more"), [(HALF_A_FORM, b""), (ASK, b"G"), (ASK, HALF_A_FORM)])
async def test_who_does_not_ask_to_the_end_is_hung_up_on(monkeypatch, said, more):
    async with bounded(monkeypatch, connections=4, request_s=0.3) as server:
        await asyncio.gather(*(until_hung_up_on(server, said, more) for _ in range(3)))
        assert (await answer_to(server, GET + b"\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_who_does_not_read_is_hung_up_on(monkeypatch):
    async with bounded(monkeypatch, request_s=0.3) as server:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, (server.address.host, server.address.port))
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(30):
                    # More than the sockets' buffers hold of the answers, until the server has had enough.
                    while True:
                        await loop.sock_sendall(deaf, ASK)


class SlowlyWell(Synthetic):
    """One that has to wait once before it can say how it is."""

    async def healthy(self):
        await asyncio.sleep(0.01)
        return True


@pytest.mark.parametrize("said", [GET + b"\r\n", GET.replace(b"connection: close\r\n", b"\r\n")])
async def test_who_asks_and_says_no_more_is_answered(monkeypatch, said):
    async with bounded(monkeypatch, source=SlowlyWell(1, 1)) as server:
        server._server.config.timeout_keep_alive = 600
        reader, writer = await connected(server)
        writer.write(said)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 30)
        assert answer.endswith(b"ok\n")
        writer.close()


async def test_who_says_no_more_in_the_middle_of_a_request_is_hung_up_on(monkeypatch):
    async with bounded(monkeypatch) as server:
        for said in (b"", GET, HALF_A_FORM):
            reader, writer = await connected(server)
            writer.write(said)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 30) == b""
            writer.close()


async def test_a_head_without_end_is_not_read(monkeypatch):
    async with bounded(monkeypatch) as server:
        assert (await answer_to(server, GET + b"x: " + b"y" * (12 << 10) + b"\r\n\r\n")).startswith(
            b"HTTP/1.1 200 "
        )
        # Without its end: what is there whole in one read would be taken, whatever its size.
        refused = await answer_to(server, GET + b"x: " + b"y" * (17 << 10))
        assert not refused or refused.split(b" ")[1] in (b"400", b"431"), refused[:100]


async def test_an_address_that_is_taken_is_said():
    options = PageOptions(HostPort("127.0.0.1", 0), None)
    async with PageServer(options, Synthetic(1, 1)) as first:
        with pytest.raises(SoftlanError, match="cannot serve the page"):
            async with PageServer(PageOptions(first.address, None), Synthetic(1, 1)):
                pass


async def test_what_is_sampled_is_what_was_fed():
    source = Synthetic(2, 5)
    sampler = Sampler(source.snapshot)
    sampler.sample()
    state, history = json.loads(sampler.state), json.loads(sampler.history())
    assert state["peer_count"] == 5
    assert len(history["points"]) == 2
    assert set(history["rooms"]) == set(source.rooms)


async def test_faults_in_snapshots_are_told_once_and_survived(monkeypatch, caplog):
    monkeypatch.setattr("softlan.observe.page.sampler.INTERVAL_S", 0.01)
    source = Synthetic(1, 2)
    sampled = asyncio.Event()
    calls = 0

    def snapshot():
        nonlocal calls
        calls += 1
        if calls in (2, 3, 5):
            raise RuntimeError("no numbers")
        if calls == 6:
            sampled.set()
        return source.snapshot()

    sampler = Sampler(snapshot)
    before = json.loads(sampler.state)["at"]
    running = asyncio.create_task(sampler.run())
    await asyncio.wait((running, asyncio.create_task(sampled.wait())), return_when=asyncio.FIRST_COMPLETED)
    assert not running.done()
    running.cancel()
    assert json.loads(sampler.state)["at"] > before
    assert [record.event.value for record in caplog.records] == ["fault", "fault"]
    assert "no numbers" in caplog.text
