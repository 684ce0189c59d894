"""The tree of errors. An error carries the decision its catcher has to make, so nobody looks into a message.

BridgeError
├── SettingsError        every wrong setting at once; nothing starts
├── MappingError         every fault of every mapping file at once; the last good set goes on
├── UsageError           a command was called wrongly (exit code 2)
├── UnknownSource        404
├── SourceOff            a source without a usable secret (503, it may be set any minute)
├── SignatureError       a request that nobody vouches for (401)
├── BodyTooLarge         a request of more than 1 MiB (413)
├── BodyEncoded          a compressed request: what was signed cannot be seen (415)
├── UnreadableBody       verified, but no document: quarantine (200)
└── StoreError
    ├── StoreUnavailable the database cannot be used just now (503)
    │   ├── StoreConflict two transactions met: the same one may be run again at once
    │   ├── StoreLocked   somebody else holds a lock: whoever has time may wait for it
    │   ├── StoreCrowded  the server has no connection to spare: the same
    │   └── StoreGone    the database's file is gone or another one; only a restart helps
    └── SchemaError      the database needs `migrate`, or a newer release

Messages are sentences for a person: where, what, what is allowed, what to do.
They hold no secret and no body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class BridgeError(Exception):
    """Anything this project raises on purpose."""


class FaultsError(BridgeError):
    """Several faults found at once, one sentence each, in the order a person would mend them."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class SettingsError(FaultsError):
    """The environment holds values that cannot be meant."""


class MappingError(FaultsError):
    """The mapping files hold faults: `file:line:col: sentence`, one line each."""


class UsageError(BridgeError):
    """A command was called in a way that cannot be meant."""


class UnknownSource(BridgeError):
    """There is no source of this name."""


class SourceOff(BridgeError):
    """The source has no usable secret, so nothing it receives can be verified."""

    retry_after_s = 60


class SignatureError(BridgeError):
    """The request is not authentic.

    `reason` is for the log only, never for the sender.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BodyTooLarge(BridgeError):
    """The request's body is longer than 1 MiB."""


class BodyEncoded(BridgeError):
    """The request's body is compressed."""


class UnreadableBody(BridgeError):
    """An authentic body that is no document; the message says why."""


class StoreError(BridgeError):
    """The database did not do what was asked."""


class StoreUnavailable(StoreError):
    """The database cannot be used just now; the same request may succeed later."""

    retry_after_s = 5


class StoreConflict(StoreUnavailable):
    """Two transactions were in each other's way; `Store.run` runs the loser again."""


class StoreLocked(StoreUnavailable):
    """Somebody else holds a lock and did not let go of it in time."""


class StoreCrowded(StoreUnavailable):
    """The server, or a pooler in front of it, has no connection to spare."""


class StoreGone(StoreUnavailable):
    """The path no longer leads to the database file that was opened; trying again helps only after a restart."""


class SchemaError(StoreError):
    """The database's schema is not the one this release works with."""
