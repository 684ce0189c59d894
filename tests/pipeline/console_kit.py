"""A person at the console, over HTTP: signs in, follows links, sends forms."""

from __future__ import annotations

import re

TOKEN = "a-token-that-opens-the-console"


class Visit:
    """One browser without JavaScript. `composed`: the bridge it looks at, with BRIDGE_ADMIN_TOKEN=TOKEN."""

    def __init__(self, composed, *, signed_in=True, host="localhost"):
        self.client = composed.client.application.test_client()
        self._base = f"http://{host}"
        if signed_in:
            assert self.sign_in().status_code == 303

    def get(self, path, **options):
        return self.client.get(path, base_url=self._base, **options)

    def post(self, path, headers=None, **fields):
        return self.client.post(path, data=fields, base_url=self._base, headers=headers)

    def change(self, path, **fields):
        """Send a form as its page would."""
        return self.post(path, csrf_token=self.csrf(), **fields)

    def sign_in(self, token=TOKEN, headers=None, **fields):
        self.get("/console/sign-in")
        # Flask's client would keep a Secure cookie from a plain address; a browser's is reached by https.
        return self.post("/console/sign-in", token=token, csrf_token=self.form_token(), headers=headers, **fields)

    def form_token(self):
        return _csrf_in(self.get("/console/sign-in").text)

    def csrf(self):
        return _csrf_in(self.get("/console/").text)

    def cookie(self):
        return self.client.get_cookie("bridge_session", path="/console").value


def _csrf_in(page):
    return re.search(r'name="csrf_token" value="([0-9a-f]+)"', page)[1]
