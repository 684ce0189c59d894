"""The view with which everything is compared: it reads the body and returns a constant."""

from flask import Flask, request

app = Flask(__name__)


@app.post("/webhooks/stripe")
def constant() -> tuple[str, int]:
    request.get_data()
    return '{"status":"accepted"}\n', 200
