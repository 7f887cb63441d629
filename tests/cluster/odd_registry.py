"""The lab's registry as an awkward one: it treats SOCI's daemon in another way than containerd."""

import http.server
import threading
import urllib.error
import urllib.request

UPSTREAM = "http://10.77.0.1:5000"
PLAIN = "plain"  # a repository with the sample's images and without any index
HEADERS = ("Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest", "Accept-Ranges")


class OddRegistry:
    """Serves what the lab's registry has. ``status`` other than 0 is its answer to SOCI's daemon."""

    def __init__(self) -> None:
        self.status = 0
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.answer(self)

            do_HEAD = do_GET  # noqa: N815 (http.server wants this name)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

        self._server = http.server.ThreadingHTTPServer(("10.77.0.1", 0), Handler)
        self.name = f"10.77.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Pass a request on, or refuse it."""
        is_soci = "soci" in request.headers.get("User-Agent", "").lower()
        if is_soci and self.status:
            request.send_response(self.status)
            if self.status == 401:
                request.send_header("WWW-Authenticate", 'Basic realm="odd"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        is_index = "/referrers/" in request.path or "/manifests/sha256-" in request.path
        if request.path.startswith(f"/v2/{PLAIN}/") and is_index:
            request.send_error(404)
            return
        path = request.path.replace(f"/v2/{PLAIN}/", "/v2/sample/", 1)
        wanted = {name: request.headers[name] for name in ("Accept", "Range") if name in request.headers}
        try:
            answer = urllib.request.urlopen(
                urllib.request.Request(UPSTREAM + path, headers=wanted, method=request.command)
            )
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            request.send_response(answer.status or 200)
            for name in HEADERS:
                if name in answer.headers:
                    request.send_header(name, answer.headers[name])
            request.end_headers()
            while piece := answer.read(1 << 20):
                request.wfile.write(piece)
