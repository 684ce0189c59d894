"""The system's Chromium, driven by Playwright, and all of its internet: one of each for all tests of a process."""

from __future__ import annotations

import datetime as dt
import shutil
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

BROWSERS_OWN = (".google.com", ".googleapis.com", ".gvt1.com")


class Internet(ThreadingHTTPServer):
    """Every https:// address of the browser's leads to this server.

    files: what it answers, by address without the query: content type, text, headers. requests: what it was asked, as
    (page that asked, method, address, body).
    """

    daemon_threads = True

    def __init__(self, certificate):
        super().__init__(("127.0.0.1", 0), Answer)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self.files = {}
        self.requests = []

    def get_request(self):
        sock, address = super().get_request()
        # The thread that answers shakes hands, too, so that a slow client keeps nobody waiting.
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request, client_address):
        """A client that hangs up is no error."""


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        host = self.headers["Host"]
        address = f"https://{host}{self.path}"
        length = int(self.headers["Content-Length"] or 0)
        sent = self.rfile.read(length).decode()
        if not host.endswith(BROWSERS_OWN) and self.path != "/favicon.ico":
            self.server.requests.append((self.headers["Referer"], self.command, address, sent))
        kind, text, headers = self.server.files.get(
            address.partition("?")[0], ("text/html", "<title>A tool</title>", {})
        )
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(text.encode())), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET  # noqa: N815 - the name is the server's

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def internet(tmp_path_factory):
    server = Internet(certificate(tmp_path_factory.mktemp("internet") / "certificate.pem"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def certificate(file):
    """A key and a certificate that nobody signed, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "internet")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=2))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture(scope="session")
def browser(internet):
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with sync_playwright() as playwright:
        options = [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--ignore-certificate-errors",
            "--disable-features=IsolateOrigins,site-per-process",  # a process for each frame would cost a second
            f"--host-resolver-rules=MAP * 127.0.0.1:{internet.server_port}, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        ]
        launched = playwright.chromium.launch(executable_path=chromium, args=options)
        yield launched
        launched.close()
