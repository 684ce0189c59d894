"""DataFast: goals out, outcomes in. The client, the table of its answers, and the read-back."""

from bridge.datafast import readback
from bridge.datafast.answers import Answer
from bridge.datafast.classify import classify
from bridge.datafast.client import Client, Website

__all__ = ["Answer", "Client", "Website", "classify", "readback"]
