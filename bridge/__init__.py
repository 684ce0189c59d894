"""The bridge between the world's webhooks and DataFast goals."""

__version__ = "0.2.0.dev0"
