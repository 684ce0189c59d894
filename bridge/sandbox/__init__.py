"""Stand-ins for the outside world: a local DataFast API (`server`), and senders of webhooks (`simulator`)."""
