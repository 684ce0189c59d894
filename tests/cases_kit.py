"""Tables of cases of which `make test` plays some, and `make test-all` every one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def one_in(number: int, cases: Iterable[Any]) -> list[Any]:
    """Cases of one parameter, all but the first of each `number` marked `long`."""
    return [pytest.param(case, marks=[pytest.mark.long] * (n % number > 0)) for n, case in enumerate(cases)]
