"""Following a log over connections that break, with a job server that breaks them (real ones: tests/ray)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import SimpleNamespace

import pytest
from aiohttp import web

from sarx.cluster import jobs
from sarx.config.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:ssl=None:DeprecationWarning")  # how Ray's client asks aiohttp
JOB = "sarx-a-1"
TOKEN = "right"


class Server:
    """A job server as Ray's client knows it: connection n gets the pieces of ``script[n]`` and breaks."""

    def __init__(self, script, status="FAILED", code=2):
        self.script, self.status, self.code, self.opened = script, status, code, 0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        assert self.ready.wait(30)

    def serve(self):
        asyncio.set_event_loop(self.loop)
        app = web.Application()
        app.add_routes([web.get("/api/version", self.version), web.get(f"/api/jobs/{JOB}", self.info)])
        app.add_routes([web.get(f"/api/jobs/{JOB}/logs/tail", self.tail)])
        runner = web.AppRunner(app)
        self.loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self.loop.run_until_complete(site.start())
        self.address = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self.ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())
        self.loop.close()

    def close(self):
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(30)

    async def version(self, request):
        if request.headers.get("Authorization", "").removeprefix("Bearer ") != TOKEN:
            return web.Response(status=403, text="InvalidAuthToken")
        return web.json_response(
            {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "x"}
        )

    async def info(self, request):
        over = self.opened >= len(self.script)
        known = {"type": "SUBMISSION", "submission_id": JOB, "entrypoint": "x"}
        state = {
            "status": self.status if over else "RUNNING",
            "driver_exit_code": self.code if over else None,
        }
        return web.json_response(known | state)

    async def tail(self, request):
        pieces = self.script[self.opened]
        self.opened += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for piece in pieces:
            await socket.send_str(piece)
        if self.opened < len(self.script):
            await asyncio.sleep(0.05)
            request.transport.abort()
        else:
            await socket.close()
        return socket


@pytest.fixture
def server(monkeypatch, tmp_path):
    from ray._private.authentication_test_utils import reset_auth_token_state

    from sarx.cluster.tokens import use_token

    started = []
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setattr(jobs, "PAUSE_S", 0.01)

    def start(script, token=TOKEN, **options):
        (tmp_path / "token").write_text(token)
        use_token(tmp_path / "token")
        reset_auth_token_state()
        started.append(Server(script, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()
    monkeypatch.undo()
    reset_auth_token_state()


def test_a_broken_connection_goes_on_where_it_was(server):
    said, opened = [], []
    one = server([["one\n", "two\n"], ["one\ntwo\n", "three\n"], ["one\n", "two\nthr", "ee\nfour\n"]])

    @contextlib.contextmanager
    def connect():
        opened.append(1)
        if len(opened) == 2:
            raise UserError("the tunnel ended with 255", where="tunnel")
        yield one.address

    assert jobs.follow(connect, JOB, said.append) == 2
    assert "".join(said) == "one\ntwo\nthree\nfour\n"
    assert len(opened) == 4


def test_what_cannot_be_reached_at_first_is_an_error_at_once(server):
    one = server([[]], token="wrong")
    with pytest.raises(UserError, match=r"cannot be reached.*Authentication failed"):
        jobs.follow(lambda: contextlib.nullcontext(one.address), JOB, print)
    gone = SimpleNamespace(address=one.address)
    one.close()
    with pytest.raises(UserError, match=r"cannot be reached.*Failed to connect"):
        jobs.follow(lambda: contextlib.nullcontext(gone.address), JOB, print)


def test_a_connection_that_stays_away_is_given_up(server, monkeypatch):
    one = server([["one\n"], []], status="SUCCEEDED", code=0)
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.2)
    tried = []

    @contextlib.contextmanager
    def connect():
        tried.append(1)
        if len(tried) > 1:
            raise UserError("no route", where="tunnel")
        yield one.address

    with pytest.raises(UserError, match=r"lost: tunnel: no route; attach again"):
        jobs.follow(connect, JOB, print)
    assert len(tried) > 2
