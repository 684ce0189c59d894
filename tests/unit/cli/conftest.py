"""Commands run in an empty folder, with an environment in which nothing is set."""

from __future__ import annotations

import pytest

from bridge.settings import TABLE


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for setting in TABLE:
        monkeypatch.delenv(setting.name, raising=False)
    monkeypatch.delenv("DYNO", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
