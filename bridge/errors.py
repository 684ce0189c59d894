"""The tree of errors. Each class carries what its handler has to decide, so no code parses a message.

BridgeError
├── ProblemsError        several problems at once: `problems` has a sentence for each
│   ├── SettingsError    nothing starts
│   └── MappingError     the last good set of rules stays in force
├── UsageError           exit code 2: the command was called in a way that it does not understand
├── EditRefused          400: a mapping file cannot be shown for editing, or cannot be saved; it is unchanged
│   └── FileChanged      409: somebody else changed it in between
├── UnknownSource        404
├── SourceOff            503 for `retry_after_s`: the source has no usable secret, which may be set at any minute
├── SignatureError       401: the request is not authentic; `reason` is for the log only
├── BodyTooLarge         413: more than 1 MiB
├── BodyEncoded          415: a compressed request, whose signed bytes cannot be seen
├── UnreadableBody       200 and quarantine: the request is authentic, but its body is not a document
└── StoreError
    ├── StoreUnavailable 503 for `retry_after_s`: the same request may succeed later
    │   ├── StoreConflict run the same transaction again immediately: two conflicted
    │   ├── StoreLocked   wait, if there is time: another connection holds a lock
    │   └── StoreGone     do not retry: only a restart helps
    └── SchemaError      run `migrate`, or start a newer release

A message is a sentence for a person: it says where, what, what is allowed, and what to do. It holds no secret and no
body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class BridgeError(Exception):
    """Base class of everything this project raises on purpose."""


class ProblemsError(BridgeError):
    """Several problems found at once, one sentence each, in the order in which a person would fix them."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class SettingsError(ProblemsError):
    """The environment holds values that are not valid."""


class MappingError(ProblemsError):
    """The mapping files have problems: `file:line:col: sentence`, one line each."""


class UsageError(BridgeError):
    """A command was called in a way that it does not understand."""


class EditRefused(BridgeError):
    """A mapping file cannot be shown for editing, or cannot be saved; it is as it was."""


class FileChanged(EditRefused):
    """The file on the disk is no longer the one that was opened."""


class UnknownSource(BridgeError):
    """There is no source of this name."""


class SourceOff(BridgeError):
    """The source has no usable secret, so nothing it receives can be verified."""

    retry_after_s = 60


class SignatureError(BridgeError):
    """The request is not authentic. `reason` is for the log only, never for the sender."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BodyTooLarge(BridgeError):
    """The request's body is longer than 1 MiB."""


class BodyEncoded(BridgeError):
    """The request's body is compressed."""


class UnreadableBody(BridgeError):
    """An authentic body that is not a document; the message says why."""


class StoreError(BridgeError):
    """The database could not do what was requested."""


class StoreUnavailable(StoreError):
    """The database cannot be used at the moment; the same request may succeed later."""

    retry_after_s = 5


class StoreConflict(StoreUnavailable):
    """Two transactions conflicted, and this one lost; `Store.run` runs it again."""


class StoreLocked(StoreUnavailable):
    """Another connection holds a lock and did not release it in time."""


class StoreGone(StoreUnavailable):
    """The path no longer leads to the database file that was opened; only a restart helps."""


class SchemaError(StoreError):
    """The database's schema is not the one this release works with."""


def os_reason(error: OSError) -> str:
    """The operating system's reason, for use in the middle of a sentence: `permission denied`."""
    return (error.strerror or type(error).__name__).lower()
