"""The DataFast API: goals out, outcomes in. The client, the table of its answers, and the read-back."""

from bridge.datafast.answers import Answer, classify
from bridge.datafast.client import Client

__all__ = ["Answer", "Client", "classify"]
