"""An inbox that waits: the server's loop leaves an event's future and comes back, a test has nothing else to do."""

from __future__ import annotations

from concurrent.futures import wait

from bridge.errors import StoreUnavailable
from bridge.store.inbox.group_commit import PATIENCE_S
from bridge.store.inbox.group_commit import Inbox as ProductInbox


class Inbox(ProductInbox):
    def put(self, event, patience_s=PATIENCE_S):
        """Store an event, or find that it was stored before. StoreUnavailable: neither is certain."""
        ack = self.post(event)
        wait((ack,), patience_s)
        if ack.cancel():
            raise StoreUnavailable("the database did not store the event in time")
        return ack.result()
