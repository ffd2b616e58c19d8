"""An S3 server on loopback (moto's), in a process of its own."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

MISSING = [
    name for name in ("obstore", "moto", "flask", "flask_cors") if importlib.util.find_spec(name) is None
]
WHY = f"not installed: {', '.join(MISSING)}; see the extras s3 and s3-server"


def environment(port: int, host: str = "127.0.0.1") -> dict[str, str]:
    """Return what lets obstore find the server; it takes any credentials."""
    return {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
        "AWS_REGION": "us-east-1",
    }


def make_bucket(port: int, name: str, host: str = "127.0.0.1") -> None:
    """Create a bucket."""
    urllib.request.urlopen(
        urllib.request.Request(f"http://{host}:{port}/{name}", method="PUT"), timeout=10
    ).close()


def await_bucket(port: int, name: str, host: str) -> None:
    """Create a bucket as soon as the server answers."""
    for _ in range(600):
        try:
            return make_bucket(port, name, host)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


@contextmanager
def s3_server() -> Iterator[int]:
    """Run a server; yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 0.1).close()
                break
            except OSError:
                assert process.poll() is None, "moto.server ended"
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()
