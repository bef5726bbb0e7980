"""A server on loopback that answers as the Hugging Face hub does for files, and as any server for plain addresses."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HubServer:
    """Serves `files`: contents by path, `owner/repo/resolve/revision/path` or any other.

    cut: how many bytes of a file are sent before the connection is closed; after that nothing is served until it is
    None again. etags: entity tags other than a file's SHA-256. commit: what is said to be served, where that is not
    what was asked for. sent: bytes of content of each GET.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.commit: str | None = None
        self.cut: int | None = None
        self.sent: list[int] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, with_body: bool) -> None:
                path = self.path.lstrip("/")
                if path not in hub.files:
                    return self.fail(404)
                if with_body and hub.cut == 0:
                    return self.fail(503)
                body = hub.files[path]
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
                self.send_response(206 if "Range" in self.headers else 200)
                if "Range" in self.headers:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                parts = path.split("/")
                if "resolve" in parts:
                    self.send_header("X-Repo-Commit", hub.commit or parts[parts.index("resolve") + 1])
                self.send_header("ETag", f'"{hub.etags.get(path, hashlib.sha256(body).hexdigest())}"')
                self.send_header("Content-Length", str(len(body) - start))
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()
                if with_body:
                    content = body[start:][: hub.cut]
                    self.wfile.write(content)
                    hub.sent.append(len(content))
                    if hub.cut is not None:
                        hub.cut, self.close_connection = 0, True

            def fail(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
