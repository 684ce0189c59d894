"""The DataFast websites that mapping files name: each by a configured name, which survives a new key.

`default` and `test` belong to the settings (DATAFAST_API_KEY, DATAFAST_TEST_API_KEY).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from bridge.model import Destination
from bridge.rules.reading.secrets import expand, is_secret, malformed, tellable, variables
from bridge.settings import WrongKind, api_key
from bridge.text import did_you_mean

if TYPE_CHECKING:
    from bridge.rules.reading.report import Diagnostics, Steps
    from bridge.rules.reading.schema import DestinationStanza

DEFAULT: Final = "default"
_OF_SETTINGS: Final = {"default": "DATAFAST_API_KEY", "test": "DATAFAST_TEST_API_KEY"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


class Destinations:
    """Collects what all files configure, then checks the names that they use."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._known: dict[str, Destination] = {}
        self._used: list[tuple[str, Steps, Diagnostics]] = []

    def name(self, written: str | DestinationStanza | None, where: Steps, report: Diagnostics, otherwise: str) -> str:
        """The name of a destination that a file or rule gives; the entry may also configure it."""
        if written is None:
            return otherwise
        if isinstance(written, str):
            self._used.append((written, where, report))
            return written
        if written.api_key is None:
            self._used.append((written.name, (*where, "name"), report))
            if written.website_id is not None:
                report.fault((*where, "website_id"), f'website_id of "{written.name}" needs its api_key beside it')
        else:
            self._configure(written, written.api_key, where, report)
        return written.name

    def _configure(self, written: DestinationStanza, key: str, where: Steps, report: Diagnostics) -> None:
        if written.name in _OF_SETTINGS:
            setting = _OF_SETTINGS[written.name]
            report.fault((*where, "name"), f'"{written.name}" is the website of {setting}; choose another name')
        elif not _NAME.fullmatch(written.name):
            report.fault((*where, "name"), f'"{written.name[:60]}" may hold only letters, digits, "-", "_" and "."')
        website_id = self._read(written.website_id, "website_id", where, report)
        found = Destination(written.name, self._key(written.name, key, where, report), website_id)
        if self._known.setdefault(written.name, found) != found:
            report.fault((*where, "name"), f'"{written.name}" is configured twice, differently')
        self._check_website(found, where, report)

    def _key(self, name: str, text: str, where: Steps, report: Diagnostics) -> str | None:
        key = self._read(text, "api_key", where, report)
        if key is None or not is_secret(key):
            missing = " and ".join(tellable(variables(text), self._environ)) or "its api_key"
            report.warn((*where, "api_key"), f'{missing} is not set: goals for the website "{name}" wait until it is')
            return None
        if not variables(text):
            report.warn(
                (*where, "api_key"), "a key is written in the file itself; write ${NAME} and set it in the environment"
            )
        try:
            return api_key(key)
        except WrongKind as error:
            report.fault((*where, "api_key"), f'the key of the website "{name}" cannot be used: {error}')
        except ValueError as error:
            report.fault((*where, "api_key"), f'the key of the website "{name}" must be {error}')
        return None

    def _read(self, text: str | None, key: str, where: Steps, report: Diagnostics) -> str | None:
        if text is not None and malformed(text):
            report.fault((*where, key), "a variable is written ${NAME}, with letters, digits and _")
        return None if text is None else expand(text, self._environ)

    @staticmethod
    def _check_website(found: Destination, where: Steps, report: Diagnostics) -> None:
        if found.website_id is not None and not re.fullmatch(r"[0-9a-fA-F]{24}", found.website_id):
            report.fault((*where, "website_id"), "website_id must be 24 hex digits (not the dfid_… of the script tag)")
        if found.api_key is not None and found.api_key.startswith("dft_") and found.website_id is None:
            report.fault(where, f'"{found.name}" has an account token (dft_…), which needs "website_id"')

    def check_names(self) -> None:
        """Every name that is used must be configured in one of the files."""
        for name, where, report in self._used:
            if name == "test":
                report.fault(where, '"test" is the website of test-mode events; other goals cannot be sent there')
            elif name != DEFAULT and name not in self._known:
                guess = did_you_mean(name, [DEFAULT, *self._known])
                report.fault(where, f'no website is named "{name}"{guess}')

    def configured(self) -> dict[str, Destination]:
        return dict(self._known)
