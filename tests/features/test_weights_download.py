"""Downloads of weights from a local server: whole and checked, or not there."""

import hashlib
import multiprocessing
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from genbench.errors import DataError
from genbench.weights import WeightsEntry, locate

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/gone.pth":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unannounced.pth":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 3] if self.path in ("/cut.pth", "/unannounced.pth") else CONTENT)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path / "store"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def published(server, file, **values):
    url = f"http://127.0.0.1:{server.server_port}/{file}"
    return WeightsEntry(name="served", summary="s", url=url, files=(file,), licence="MIT", used_by=("x",), **values)


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "store").iterdir() if path.suffix != ".lock")


def test_a_good_file_is_downloaded_once(server, tmp_path, capsys):
    weights = published(server, "good.pth", sha256=SHA256, size_bytes=len(CONTENT))
    first = locate(weights)
    assert first.path.read_bytes() == CONTENT and first.known and first.sha256 == SHA256
    assert "good.pth: 1.0 of 1.0 MB (100%)" in capsys.readouterr().err
    assert locate(weights) == first
    assert server.requests == ["/good.pth"] and left(tmp_path) == ["good.pth"]


def test_a_download_without_a_known_hash_is_pinned(server, tmp_path):
    weights = published(server, "good.pth")
    locate(weights).path.write_bytes(b"changed")
    with pytest.raises(DataError, match=f"expected {SHA256}, that of the first file used"):
        locate(weights)
    assert left(tmp_path) == ["good.pth", "pins.json"]


@pytest.mark.parametrize(
    ("file", "values", "reason"),
    [
        ("cut.pth", {"sha256": SHA256}, "broke off: 349,525 bytes of 1,048,576 came"),
        ("unannounced.pth", {"size_bytes": len(CONTENT)}, "broke off"),
        ("good.pth", {"sha256": "0" * 64}, f"gave another file: SHA-256 is {SHA256}, expected 0000"),
        ("good.pth", {"sha256_prefix": "00000000"}, "begins with 00000000"),
        ("gone.pth", {"sha256": SHA256}, "HTTP 404"),
    ],
)
def test_a_bad_download_leaves_nothing_and_says_what_to_do(server, tmp_path, file, values, reason):
    weights = published(server, file, **values)
    with pytest.raises(DataError) as error:
        locate(weights)
    for part in (reason, weights.url, str(tmp_path / "store"), "digits-cnn"):
        assert part in str(error.value)
    assert left(tmp_path) == []


def test_no_network_is_an_error_with_the_way_out(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"could not be downloaded \(.*refused.*By hand: download http"):
        locate(published(server, "good.pth", sha256=SHA256))


def _locate(weights, queue):
    queue.put(locate(weights).sha256)


def test_two_processes_share_one_download(server, tmp_path):
    weights = published(server, "good.pth", sha256=SHA256)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_locate, args=(weights, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=30) for _ in processes] == [SHA256, SHA256]
    for process in processes:
        process.join(30)
    assert server.requests == ["/good.pth"] and left(tmp_path) == ["good.pth"]
