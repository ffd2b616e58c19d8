"""What every store must do, on each kind of store; and what is said where one cannot be used."""

import contextlib
import hashlib
import http.server
import itertools
import json
import multiprocessing
import socket
import threading
import time

import pytest

from sarx.config.errors import UserError
from sarx.study.store import Changed, StoreError, check_store, deletable
from sarx.study.store_folder import FolderStore
from sarx.study.store_object import ObjectStore, store_of
from sarx.study.urls import Url, is_url, parse_url
from tests import s3_server

_NUMBERS = itertools.count()
needs_server = pytest.mark.skipif(bool(s3_server.MISSING), reason=s3_server.WHY)


@pytest.fixture(scope="module")
def server():
    with s3_server.s3_server() as port:
        s3_server.make_bucket(port, "bucket")
        yield port


@pytest.fixture(params=["folder", "memory", pytest.param("s3", marks=needs_server)])
def store(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    if request.param == "memory":
        return store_of(Url("memory", "x", f"p{next(_NUMBERS)}"))
    for name, value in s3_server.environment(request.getfixturevalue("server")).items():
        monkeypatch.setenv(name, value)
    store_of.cache_clear()
    return store_of(Url("s3", "bucket", f"deep/p{next(_NUMBERS)}"))


def test_what_is_put_is_read(store, tmp_path):
    with pytest.raises(FileNotFoundError):
        store.read("a/b")
    with pytest.raises(FileNotFoundError):
        store.fetch("a/b", tmp_path / "copy")
    store.put("a/b", b"one")
    raw, tag = store.read("a/b")
    assert raw == b"one"
    store.put("a/b", b"two")
    assert store.read("a/b")[0] == b"two"
    assert store.read("a/b")[1] != tag
    large = bytes(range(256)) * 50_000  # 12.8 MB: in several parts
    (tmp_path / "large").write_bytes(large)
    store.put("large", tmp_path / "large")
    assert store.fetch("large", tmp_path / "copy") == hashlib.sha256(large).hexdigest()
    assert (tmp_path / "copy").read_bytes() == large


def test_create_writes_once(store):
    tag = store.create("x", b"first")
    assert store.read("x") == (b"first", tag)
    for again in (b"second", b"first"):
        with pytest.raises(FileExistsError):
            store.create("x", again)
    assert store.read("x") == (b"first", tag)
    assert store.read(store.create("empty", b"") and "empty")[0] == b""


def test_replace_needs_the_tag(store):
    with pytest.raises(Changed):
        store.replace("x", b"one", "no such tag")
    first = store.create("x", b"one")
    second = store.replace("x", b"two", first)
    with pytest.raises(Changed):
        store.replace("x", b"three", first)
    assert store.read("x") == (b"two", second)


def test_listing(store):
    assert store.listing() == []
    assert store.folders() == []
    for number in range(12):
        store.put(f"l/{number:03d}", b"z" * number)
    store.put("l/sub/x", b"")
    store.put("lx/y", b"")
    store.put("top", b"")
    found = store.listing("l")
    assert [(item.name, item.size) for item in found[:12]] == [(f"l/{n:03d}", n) for n in range(12)]
    assert [item.name for item in found[12:]] == ["l/sub/x"]
    assert [item.name for item in store.listing("l", after="l/009")] == ["l/010", "l/011", "l/sub/x"]
    assert [item.name for item in store.listing()][-2:] == ["lx/y", "top"]
    assert store.folders() == ["l", "lx"]
    assert found[3].tag == store.read("l/003")[1]
    assert abs(found[3].modified - time.time()) < 60
    below = store.below("l")
    assert below.url == f"{store.url}/l"
    assert [item.name for item in below.listing()][-1] == "sub/x"
    assert below.folders() == ["sub"]
    assert below.read("003")[0] == b"zzz"


def test_deleting(store):
    names = [f"tiny/trials/0a/attempt-1/epoch-0000{n}.{kind}" for n in (1, 2) for kind in ("pt", "sha256")]
    for name in names:
        store.put(name, b"x")
    store.delete([*names[:2], "tiny/trials/0a/attempt-9/epoch-00001.pt"])
    assert [item.name for item in store.listing()] == names[2:]
    for kept in (
        "tiny/ledger/events-000001-000000.ndjson",
        "tiny/ledger/lease.json",
        "tiny/trials/0a/attempt-1/weights-00002.pt",
        "tiny/trials/0a/attempt-1/geometry.npz",
        "tiny/trials/0a/log.txt",
        "tiny/study.lock",
    ):
        assert not deletable(kept)
        with pytest.raises(AssertionError, match="must never be deleted"):
            store.delete([kept])


def test_of_many_only_one_creates_and_one_replaces(store):
    barrier, won = threading.Barrier(8), []

    def contend(number):
        barrier.wait()
        with contextlib.suppress(FileExistsError):
            won.append(store.create("x", b"%d" % number))

    threads = [threading.Thread(target=contend, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if isinstance(store, FolderStore) or store.url.startswith("memory"):
        assert len(won) == 1
        assert store.read("x")[1] == won[0]
    else:
        assert won  # moto looks and then writes, without a lock


def _contend(root, tag, number, results):
    try:
        FolderStore(root).replace("x", b"%d" % number, tag)
        results.put(1)
    except Changed:
        results.put(0)


def test_processes_replace_a_file_one_at_a_time(tmp_path):
    tag = FolderStore(tmp_path).create("x", b"start")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_contend, args=(tmp_path, tag, n, results)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sum(results.get(timeout=10) for _ in range(4)) == 1


def test_a_store_with_both_conditions_is_accepted_and_left_as_it_was(store):
    check_store(store)
    assert store.listing() == []


class Careless(ObjectStore):
    """A store that honours some conditions only."""

    ignored = ()

    def create(self, name, raw):
        if "create" in self.ignored:
            self.put(name, raw)
            return self.read(name)[1]
        return super().create(name, raw)

    def replace(self, name, raw, tag):
        if "replace" in self.ignored:
            self.put(name, raw)
            return self.read(name)[1]
        return super().replace(name, raw, tag)


@pytest.mark.parametrize(("ignored", "header"), [("create", "If-None-Match"), ("replace", "If-Match")])
def test_a_store_that_ignores_a_condition_is_refused(ignored, header):
    memory = store_of(Url("memory", "careless", ignored))
    store = Careless(memory._client, memory.url, ignored)
    store.ignored = (ignored,)
    with pytest.raises(UserError, match=rf"overwrites an object in spite of {header}, so two drivers could"):
        check_store(store)
    assert store.listing() == []


@pytest.mark.parametrize("mode", ["create", "replace"])
def test_an_answer_that_was_lost_is_found_out(mode, monkeypatch):
    import obstore

    store = store_of(Url("memory", "losing", mode))
    tag = store.create("other", b"before")
    put, losses = obstore.put, [True, True]

    def losing(client, path, *arguments, **options):
        done = put(client, path, *arguments, **options)
        if losses and losses.pop():
            raise obstore.exceptions.GenericError("error sending request")
        return done

    monkeypatch.setattr(obstore, "put", losing)
    monkeypatch.setattr("sarx.study.store_object._AGAIN_S", (0.01, 0.01, 0.01))
    if mode == "create":
        store.create("x", b"mine")
        assert store.read("x")[0] == b"mine"
        losses[:] = [True]
        with pytest.raises(FileExistsError):
            store.create("other", b"not before")
    else:
        store.replace("other", b"mine", tag)
        assert store.read("other")[0] == b"mine"
        losses[:] = [True]
        with pytest.raises(Changed):
            store.replace("other", b"not mine", tag)


@needs_server
def test_what_is_said_when_a_store_cannot_be_used(server, monkeypatch):
    for name, value in s3_server.environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sarx.study.store_object._RETRIES", {"max_retries": 1})
    monkeypatch.setattr("sarx.study.store_object._AGAIN_S", ())
    store_of.cache_clear()
    with pytest.raises(UserError, match=r"^s3://gone/x.*: there is no such bucket; create it, or correct"):
        check_store(store_of(Url("s3", "gone", "x")))
    with pytest.raises(StoreError, match="there is no such bucket"):
        store_of(Url("s3", "gone", "x")).listing()
    with pytest.raises(StoreError, match="there is no such bucket"):
        store_of(Url("s3", "gone", "x")).read("y")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        store_of.cache_clear()
        with pytest.raises(UserError, match=r"^s3://bucket/x.*: the store gives no answer \(") as told:
            check_store(store_of(Url("s3", "bucket", "x")))
    assert len(str(told.value).splitlines()) == 1
    assert "secret" not in str(told.value)
    store_of.cache_clear()


class Denying(threading.Thread):
    """Answers every request with one status and body, as stores do."""

    def __init__(self, status, body):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.answer = (
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )

    def run(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            with peer:
                peer.recv(65536)
                peer.sendall(self.answer)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ("403 Forbidden", "AccessDenied", "permission was denied to these credentials"),
        ("403 Forbidden", "InvalidAccessKeyId", "permission was denied to these credentials"),
        ("501 Not Implemented", "NotImplemented", "the store has no conditional writes"),
        ("404 Not Found", "NoSuchBucket", "there is no such bucket"),
    ],
)
def test_refusals_are_told_apart(status, code, said, monkeypatch):
    pytest.importorskip("obstore")
    denying = Denying(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>")
    denying.start()
    for name, value in s3_server.environment(denying.socket.getsockname()[1]).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sarx.study.store_object._RETRIES", {"max_retries": 0})
    store_of.cache_clear()
    with pytest.raises(UserError, match=f"^s3://bucket/x.*: {said}") as told:
        check_store(store_of(Url("s3", "bucket", "x")))
    assert len(str(told.value).splitlines()) == 1
    denying.socket.close()
    store_of.cache_clear()


def test_no_credentials(monkeypatch):
    pytest.importorskip("obstore")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    silent = Denying("404 Not Found", "")  # an instance without a role
    silent.start()
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{silent.socket.getsockname()[1]}")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr("sarx.study.store_object._RETRIES", {"max_retries": 0})
    monkeypatch.setattr("sarx.study.store_object._AGAIN_S", ())
    store_of.cache_clear()
    with pytest.raises(UserError, match=r"no credentials were found; set AWS_ACCESS_KEY_ID"):
        check_store(store_of(Url("s3", "bucket", "x")))
    silent.socket.close()
    store_of.cache_clear()


class Generations(http.server.BaseHTTPRequestHandler):
    """Answers as GCS does and keeps the conditions that it was sent."""

    asked = []

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.headers.get("x-goog-if-generation-match"))
        self.send_response(200)
        for name, value in (("ETag", '"e"'), ("x-goog-generation", "77"), ("Content-Length", "0")):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_gcs_is_sent_its_own_conditions(monkeypatch):
    """No GCS server that can be installed honours them; what is sent is what its documentation says."""
    pytest.importorskip("obstore")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Generations)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    account = {"gcs_base_url": f"http://127.0.0.1:{server.server_port}", "disable_oauth": True}
    account |= {"client_email": "", "private_key": "", "private_key_id": ""}
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account))
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    store_of.cache_clear()
    store = store_of(Url("gs", "bucket", "x"))
    assert store.create("a", b"one") == "77"
    assert store.replace("a", b"two", "77") == "77"
    assert Generations.asked == ["0", "77"]
    store_of.cache_clear()
    server.shutdown()
    server.server_close()


def test_urls(tmp_path):
    assert parse_url("s3://bucket/a/b/") == Url("s3", "bucket", "a/b")
    assert parse_url("gs://bucket") == Url("gs", "bucket")
    assert parse_url(f"file://{tmp_path}") == tmp_path
    url = Url("s3", "bucket") / "a" / "b"
    assert (str(url), url.name, str(url.parent), str(url.parent.parent)) == (
        "s3://bucket/a/b",
        "b",
        "s3://bucket/a",
        "s3://bucket",
    )
    assert [is_url(text) for text in ("s3://x", "results", "/a//b")] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://host/x", "http:// is not known; known: s3://, gs://, file:///"),
        ("s3://key:secret@bucket/x", "credentials come from the environment"),
        ("s3://bucket/x?token=secret", "credentials come from the environment"),
        ("s3:///x", "is not s3://bucket/prefix"),
        ("s3://bucket/a//b", "is not s3://bucket/prefix"),
        ("s3://bucket/a/../b", "mean nothing in a bucket"),
        ("file://host/x", "three slashes"),
    ],
)
def test_urls_that_are_refused(text, said):
    with pytest.raises(UserError, match=said) as told:
        parse_url(text)
    assert "secret" not in str(told.value)
