"""The Bearer header, set by an auth class of our own: with anything less a `.netrc` entry of the host replaces it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from requests.auth import AuthBase

if TYPE_CHECKING:
    from requests import PreparedRequest


class Bearer(AuthBase):
    """`Authorization: Bearer <key>`. Its repr does not show the key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request
