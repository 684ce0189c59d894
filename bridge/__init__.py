"""The bridge between the world's webhooks and DataFast goals."""

__version__ = "0.1.0"
