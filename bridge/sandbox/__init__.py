"""What stands in for the outside world: a DataFast of our own (`server`), and senders of webhooks (`simulator`)."""
