"""download.py against a server on this machine: broken off, gone on with, wrong, stubborn, or not there."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bellglass.download import Download, fetch, ready, recorded
from bellglass.errors import SetupError, UsageError

TEXT = bytes(range(256)) * 200
SHA = hashlib.sha256(TEXT).hexdigest()


@dataclass
class Shop:
    """What the server serves, and how badly."""

    port: int = 0
    content: bytes = TEXT
    etag: str | None = '"one"'
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes of a body that each of the next answers ends after
    asked: list[str | None] = field(default_factory=list)  # the Range of each request
    hops: list[str] = field(default_factory=list)  # where the next requests are sent on to
    length: bool = True  # whether it says how long an answer is
    chunks: bool = False

    def download(self, sha256: str | None = None, name: str = "text.txt") -> Download:
        return Download(name, f"http://127.0.0.1:{self.port}/{name}", sha256)


def handler(shop: Shop) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if shop.hops:
                self.send_response(302)
                self.send_header("Location", shop.hops.pop(0))
                self.end_headers()
                return
            wanted = self.headers["Range"]
            shop.asked.append(wanted)
            first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and shop.ranges else 0
            if self.headers["If-Range"] not in (None, shop.etag):
                first = 0
            body = shop.content[first:]
            if first and not body:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(shop.content)}")
                self.end_headers()
                return
            self.send_response(206 if first else 200)
            if shop.length:
                self.send_header("Content-Length", str(len(body)))
            if shop.chunks:
                self.send_header("Transfer-Encoding", "chunked")
                body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            if shop.etag:
                self.send_header("ETag", shop.etag)
            if first:
                total = len(shop.content) if shop.length else "*"
                self.send_header("Content-Range", f"bytes {first}-{len(shop.content) - 1}/{total}")
            self.end_headers()
            self.wfile.write(body[: shop.cut_after.pop(0)] if shop.cut_after else body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(shop))
    shop.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield shop
    server.shutdown()
    thread.join()
    server.server_close()


def said(line: str) -> None:
    assert line


def test_the_first_download_is_trusted_and_recorded_and_then_nothing_else_is(shop: Shop, tmp_path: Path) -> None:
    path = fetch("t", shop.download(), tmp_path / "new", said)
    assert path.read_bytes() == TEXT
    assert recorded(path) == SHA
    assert ready("t", shop.download(), path.parent) == path
    assert sorted(file.name for file in path.parent.iterdir()) == ["text.txt", "text.txt.sha256"]
    fetch("t", shop.download(), path.parent, said)
    assert shop.asked == [None]
    path.unlink()
    shop.content = b"another version"
    with pytest.raises(SetupError, match=rf"put aside as text\.txt\.bad; needed: sha256 {SHA}"):
        fetch("t", shop.download(), path.parent, said)


def test_a_broken_transfer_goes_on_where_it_broke(shop: Shop, tmp_path: Path) -> None:
    shop.cut_after = [1000, 20_000]
    assert fetch("t", shop.download(SHA), tmp_path, said).read_bytes() == TEXT
    assert shop.asked == [None, "bytes=1000-", "bytes=21000-"]


def test_a_transfer_that_a_person_ended_goes_on_at_the_next_command(shop: Shop, tmp_path: Path) -> None:
    shop.cut_after = [1000, 0]
    with pytest.raises(SetupError, match=r"1000 of 51200 bytes.*kept\).*next: bellglass tasks --fetch t"):
        fetch("t", shop.download(SHA), tmp_path, said)
    assert (tmp_path / "text.txt.part").read_bytes() == TEXT[:1000]
    with pytest.raises(SetupError, match="downloaded once"):
        ready("t", shop.download(SHA), tmp_path)
    assert fetch("t", shop.download(SHA), tmp_path, said).read_bytes() == TEXT
    assert shop.asked[-1] == "bytes=1000-"


def test_a_server_that_ignores_ranges_is_asked_from_the_start(shop: Shop, tmp_path: Path) -> None:
    shop.ranges, shop.cut_after = False, [1000]
    assert fetch("t", shop.download(), tmp_path, said).read_bytes() == TEXT
    assert shop.asked == [None, "bytes=1000-"]


def test_a_part_of_an_older_version_is_thrown_away(shop: Shop, tmp_path: Path) -> None:
    shop.cut_after = [1000, 0]
    with pytest.raises(SetupError):
        fetch("t", shop.download(), tmp_path, said)
    shop.content, shop.etag = TEXT[::-1], '"two"'
    assert fetch("t", shop.download(), tmp_path, said).read_bytes() == TEXT[::-1]


def test_without_a_version_to_ask_for_a_part_is_not_gone_on_with(shop: Shop, tmp_path: Path) -> None:
    shop.etag, shop.cut_after = None, [1000]
    assert fetch("t", shop.download(), tmp_path, said).read_bytes() == TEXT
    assert shop.asked == [None, None]


def test_a_part_that_was_complete_is_not_asked_for_again(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "text.txt.part").write_bytes(TEXT)
    (tmp_path / "text.txt.part.tag").write_text('"one"')
    assert fetch("t", shop.download(SHA), tmp_path, said).read_bytes() == TEXT
    assert shop.asked == ["bytes=51200-"]


def test_a_part_longer_than_the_file_starts_anew(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "text.txt.part").write_bytes(TEXT + b"more")
    (tmp_path / "text.txt.part.tag").write_text('"one"')
    assert fetch("t", shop.download(SHA), tmp_path, said).read_bytes() == TEXT


def test_a_wrong_checksum_is_one_clear_error_and_the_file_is_put_aside(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=rf"sha256 {SHA}; put aside as text.txt.bad; needed: sha256 0+, as pinned"):
        fetch("t", shop.download("0" * 64), tmp_path, said)
    assert (tmp_path / "text.txt.bad").read_bytes() == TEXT
    assert not (tmp_path / "text.txt").exists()


def test_a_file_that_changed_on_disk_is_noticed_before_use(shop: Shop, tmp_path: Path) -> None:
    path = fetch("t", shop.download(), tmp_path, said)
    path.write_bytes(TEXT + b"!")
    with pytest.raises(SetupError, match=r"text\.txt\.bad"):
        ready("t", shop.download(), tmp_path)


def test_a_file_that_a_person_copied_there_is_taken_without_a_connection(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT)
    assert recorded(fetch("t", shop.download(), tmp_path, said)) == SHA
    assert shop.asked == []


def test_offline_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/text.txt"
        with pytest.raises(SetupError) as caught:
            fetch("t", Download("text.txt", url, None), tmp_path, said)
    assert url in caught.value.thing
    assert f"the file copied to {tmp_path / 'text.txt'}" in caught.value.needed
    assert caught.value.next_command == "bellglass tasks --fetch t"


@pytest.mark.parametrize("url", ["http://example.org/text.txt", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_nothing_is_fetched_unencrypted_from_elsewhere(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="needed: https"):
        fetch("t", Download("text.txt", url, None), tmp_path, said)


def test_a_redirect_is_looked_at_before_it_is_followed(shop: Shop, tmp_path: Path) -> None:
    here = f"{shop.port}/text.txt"
    shop.hops = [f"http://localhost:{here}", f"http://127.0.0.1:{here}"]
    assert fetch("t", shop.download(), tmp_path / "local", said).read_bytes() == TEXT
    shop.hops = [f"http://127.1:{here}", f"http://127.0.0.1:{here}"]  # by a name that we don't know as this machine's
    with pytest.raises(UsageError, match=r"http://127\.1:.*needed: https"):
        fetch("t", shop.download(), tmp_path / "around", said)
    assert len(shop.hops) == 1, "the stranger was asked"
    assert not list((tmp_path / "around").iterdir())


@pytest.mark.parametrize("left", [b"", TEXT[:1000]], ids=["whole", "rest"])
def test_what_could_have_been_cut_off_anywhere_is_taken_only_by_a_known_checksum(
    shop: Shop, tmp_path: Path, left: bytes
) -> None:
    if left:
        (tmp_path / "text.txt.part").write_bytes(left)
        (tmp_path / "text.txt.part.tag").write_text('"one"')
    shop.length, shop.cut_after = False, [20_000]
    with pytest.raises(SetupError, match=r"does not say its length; needed: .* sha256 in task\.toml"):
        fetch("t", shop.download(), tmp_path, said)
    assert not (tmp_path / "text.txt").exists()
    shop.cut_after = []
    assert fetch("t", shop.download(SHA), tmp_path, said).read_bytes() == TEXT


def test_chunks_say_themselves_where_they_end(shop: Shop, tmp_path: Path) -> None:
    shop.length, shop.chunks, shop.cut_after = False, True, [1000]
    with pytest.raises(SetupError, match="IncompleteRead"):
        fetch("t", shop.download(), tmp_path, said)
    assert fetch("t", shop.download(), tmp_path, said).read_bytes() == TEXT


def test_a_folder_that_can_t_be_written_is_one_clear_error(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="a folder this user may write"):
        fetch("t", shop.download(), tmp_path / "file", said)
