"""Who gives way: against a plain model of the same, and by example."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.server.connections import Crowd, origin_of


def model_first(line: list[tuple[int, str]]) -> set[int]:
    """By the definition: of each origin with the most, whoever has stood longest."""
    by_origin: dict[str, list[int]] = {}
    for member, origin in line:
        by_origin.setdefault(origin, []).append(member)
    most = max(map(len, by_origin.values()), default=0)
    return {members[0] for members in by_origin.values() if len(members) == most}


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans())))
def test_whoever_stands_longest_of_those_with_the_most_gives_way(steps):
    crowd: Crowd[int] = Crowd()
    line: list[tuple[int, str]] = []
    for member, comes in steps:
        origin = "abc"[member % 3]
        line = [one for one in line if one[0] != member]
        if comes:
            crowd.put(member, origin)
            line.append((member, origin))
        else:
            crowd.drop(member)
        first = crowd.first()
        assert ({first} if first is not None else set()) <= model_first(line)
        assert (first is None) == (not line)


def test_where_all_have_as_many_the_one_that_got_on_longest_ago_gives_way():
    crowd: Crowd[str] = Crowd()
    for name in ("first", "second", "third"):
        crowd.put(name, name)
    crowd.put("first", "first")
    assert crowd.first() == "second"


def test_an_ipv6_customer_is_one_origin_and_a_mapped_address_is_ipv4():
    assert origin_of(("2001:db8:1:2::1", 1, 0, 0)) == origin_of(("2001:db8:1:2:3::4", 2, 0, 0))
    assert origin_of(("2001:db8:1:3::1", 1, 0, 0)) != origin_of(("2001:db8:1:2::1", 1, 0, 0))
    assert origin_of(("::ffff:192.0.2.1", 1, 0, 0)) == origin_of(("192.0.2.1", 1)) == "192.0.2.1"
    assert origin_of(("fe80::1%eth0", 1, 0, 2)) == origin_of(("fe80::2", 1, 0, 2))
    assert origin_of("") == ""
