"""The HTTP server: gunicorn's settings, our worker for it, framing. It knows no route."""
