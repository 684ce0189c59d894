"""Health, status, metrics and links: who sees what, and what makes them red and green again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cases_kit import one_in
from prometheus_client.parser import text_string_to_metric_families
from shop import sale, signed
from sqlalchemy import insert, update

from bridge import settings as table
from bridge import web
from bridge.errors import SchemaError, StoreUnavailable
from bridge.store import Store
from bridge.store.operator import status
from bridge.store.schema import destinations, events, goals, source_counters
from bridge.store.upkeep import jumps
from bridge.web import cached

ADMIN = {"Authorization": "Bearer admin-token"}
LINKS = {"Authorization": "Bearer links-token"}
VISITOR = "3f2c1b4a-1111-4222-8333-444455556666"
MIN = 60_000


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch):
    monkeypatch.setattr(cached.Cached.__init__, "__defaults__", (0.0,))


@pytest.fixture
def at_work(bridge):
    """The bridge with a worker that was seen just now."""
    beat(bridge)
    return bridge


def beat(bridge, **options):
    with bridge.store.write() as conn:
        status.record_heartbeat(conn, "w1", **{"kind": "inline", "rules_hash": "h", "rules_fault": None, **options})


def problems(client):
    """What /status says to everybody and to the owner; its code must be the same for both."""
    public, owner = client.get("/status"), client.get("/status", headers=ADMIN)
    assert public.status_code == owner.status_code == (503 if public.json["problems"] else 200)
    assert public.json.keys() == {"ok", "problems", "notes"}
    return public.json["problems"], owner.json["problems"]


def write(bridge, statement):
    with bridge.store.write() as conn:
        return conn.execute(statement)


def an_event(bridge, **values):
    row = {
        "source": "shop", "provider": "custom", "type": "sale", "test": False, "dedupe_key": "k", "dedupe_key_2": "k",
        "headers": "{}", "query": "{}", "state": "routed", "received_at_ms": bridge.clock.now_ms,
    }  # fmt: skip
    return write(bridge, insert(events).values(row | values)).inserted_primary_key[0]


def a_goal(bridge, **values):
    now = bridge.clock.now_ms
    row = {
        "event_id": an_event(bridge), "source": "shop", "rule_id": "r", "destination": "default", "once_key": "o",
        "test": False, "name": "sale", "description": "d", "metadata": "{}", "state": "pending", "happened_at_ms": now,
        "time_is_stated": True, "ordered_at_ms": now, "created_at_ms": now, "changed_at_ms": now, "due_at_ms": now,
        "expires_at_ms": now + 10 * MIN, "wait_ms": 0, "visitor": VISITOR,
    }  # fmt: skip
    write(bridge, insert(goals).values(row | values))


# ------------------------------------------------------------------------------------------------------------ health


def test_healthz_answers_even_without_a_database(client, bridge):
    bridge.store = None
    assert client.get("/healthz").text == "ok\n"


def test_readyz_is_200_with_what_does_not_keep_events_out(client, bridge):
    bridge.rules_fault = "mappings/shop.yaml:1:1: unknown key"
    public, owner = client.get("/readyz"), client.get("/readyz", headers=ADMIN)
    assert public.status_code == owner.status_code == 200
    assert public.json == {
        "ready": True,
        "sources": 2,
        "sources_without_secret": 1,
        "destinations_paused": 0,
        "reload_refused": True,
    }
    assert owner.json["sources_without_secret"] == ["off"]
    assert owner.json["reload_refused"] == bridge.rules_fault


class Gone(Store):
    def __init__(self, error):
        self.error = error

    def write(self, *_work, **_options):
        raise self.error

    read = run = write


@pytest.mark.parametrize("error", [StoreUnavailable("the database is away"), SchemaError("run `migrate`")])
def test_readyz_is_503_with_the_reason_when_nothing_can_be_stored(client, bridge, error):
    real, bridge.store = bridge.store, Gone(error)
    answer = client.get("/readyz")
    bridge.store = real
    assert (answer.status_code, answer.json) == (503, {"ready": False, "reason": str(error)})
    assert answer.headers["Retry-After"] == "5"
    assert client.get("/readyz").status_code == 200


# ------------------------------------------------------------------------------------------------------------ status


def test_status_is_green_while_all_is_well(client, at_work):
    a_goal(at_work)
    assert problems(client) == ([], [])


def test_no_worker_is_red_until_one_is_seen(client, bridge):
    assert problems(client)[0] == ["No worker is running: events are stored, but nothing is sent."]
    beat(bridge, kind="web")
    assert problems(client)[0]
    beat_of_worker = {"kind": "worker", "rules_hash": "h", "rules_fault": None}
    with bridge.store.write() as conn:
        status.record_heartbeat(conn, "w2", **beat_of_worker)
    assert problems(client) == ([], [])
    bridge.clock.advance(MIN)
    assert problems(client)[0]


def test_a_paused_destination_is_red_until_it_is_open(client, at_work):
    write(
        at_work,
        insert(destinations).values(
            name="default", pause_kind="configuration", pause_reason="401: wrong key", paused_since_ms=1
        ),
    )
    public, owner = problems(client)
    assert public == ["A destination is paused."]
    assert "default" in owner[0]
    assert "401: wrong key" in owner[0]
    write(at_work, update(destinations).values(pause_kind="throttled"))
    assert problems(client) == ([], [])
    write(at_work, update(destinations).values(pause_kind=None))
    assert problems(client) == ([], [])


def test_a_destination_that_is_no_longer_configured_is_nobodys_alarm(client, at_work):
    write(at_work, insert(destinations).values(name="gone", pause_kind="failures"))
    assert problems(client) == ([], [])


def test_a_goal_that_is_due_for_long_is_red(client, at_work):
    a_goal(at_work, state="pending")
    at_work.clock.advance(16 * MIN)
    beat(at_work)
    assert problems(client)[0] == ["Goals have been waiting for more than 15 minutes."]
    write(at_work, update(goals).values(state="delivered"))
    assert problems(client) == ([], [])


def test_an_event_that_waits_for_long_is_red(client, at_work):
    an_event(at_work, state="received")
    at_work.clock.advance(16 * MIN)
    beat(at_work)
    assert problems(client)[0] == ["Events have been waiting for more than 15 minutes."]
    write(at_work, update(events).values(state="routed"))
    assert problems(client) == ([], [])


def test_quarantine_is_red_until_it_is_empty(client, at_work):
    an_event(at_work, state="quarantined")
    assert problems(client)[0] == ["Events are in quarantine."]
    write(at_work, update(events).values(state="routed"))
    assert problems(client) == ([], [])


def test_held_goals_are_red_until_somebody_decides(client, at_work):
    a_goal(at_work, state="held")
    assert problems(client)[0] == ["Goals are held for a decision."]
    assert (
        "1 goal is held: nobody can tell whether it arrived, or it became" in client.get("/status", headers=ADMIN).text
    )
    write(at_work, update(goals).values(state="cancelled"))
    assert problems(client) == ([], [])


REFUSED = "A source is refusing requests."
HOUR = 60 * MIN


def refuse(client, at_work, count=5, name="shop", every_ms=5 * MIN):
    for _ in range(count):
        at_work.clock.advance(every_ms)
        client.post(f"/webhooks/{name}", data=sale())
        at_work.counters.flush(at_work.store)
    beat(at_work)


def sell(client, at_work, number, after_ms=0):
    at_work.clock.advance(after_ms)
    body = sale(id=f"evt_{number}")
    assert client.post("/webhooks/shop", data=body, headers=signed(body)).status_code == 200
    write(at_work, update(events).values(state="routed"))
    beat(at_work)


def noted(client):
    """What everybody reads, and what the owner reads."""
    return tuple(client.get("/status", headers=headers).json["notes"] for headers in ({}, ADMIN))


def test_what_a_stranger_sends_is_a_note_and_turns_nothing_red(client, at_work):
    refuse(client, at_work, 50, every_ms=HOUR)
    assert problems(client) == ([], [])
    public, (owner,) = noted(client)
    assert public == ["A source refused requests."]
    assert owner.startswith("Source shop refused the last 50 requests, 0 s ago: ")
    sell(client, at_work, 1)
    assert noted(client) == ([], [])


def test_a_stranger_cannot_turn_the_alarm_on_while_a_source_is_as_silent_as_it_often_is(client, at_work):
    for number in range(3):
        sell(client, at_work, number, after_ms=9 * HOUR)
    refuse(client, at_work, 200, every_ms=5 * MIN)
    assert problems(client) == ([], [])


def test_a_swapped_secret_is_red_in_time_until_an_event_comes_through(client, at_work):
    for number in range(3):
        sell(client, at_work, number, after_ms=2 * HOUR)
    refuse(client, at_work, 5, every_ms=45 * MIN)
    assert problems(client) == ([], [])
    refuse(client, at_work, 1, every_ms=16 * MIN)
    public, (owner,) = problems(client)
    assert public == [REFUSED]
    assert owner.startswith("Source shop refused the last 6 requests (")
    assert "no genuine event has arrived for 4 h" in owner
    assert "The likely cause is that the provider now uses another secret: compare SHOP_WEBHOOK_SECRET" in owner
    assert noted(client) == ([], [])
    sell(client, at_work, 9)
    assert problems(client) == ([], [])


def test_five_refusals_within_a_quarter_of_an_hour_are_not_enough(client, at_work):
    for number in range(2):
        sell(client, at_work, number, after_ms=HOUR)
    at_work.clock.advance(10 * HOUR)
    refuse(client, at_work, 5, every_ms=3 * MIN)
    assert problems(client) == ([], [])
    refuse(client, at_work, 1, every_ms=3 * MIN)
    assert problems(client)[0] == [REFUSED]


def test_of_a_source_with_one_event_a_day_of_silence_is_needed(client, at_work):
    sell(client, at_work, 1)
    refuse(client, at_work, 5, every_ms=4 * HOUR)
    assert problems(client) == ([], [])
    refuse(client, at_work, 1, every_ms=4 * HOUR)
    assert problems(client)[0] == [REFUSED]


@pytest.mark.long
def test_a_long_silence_is_forgotten_after_two_months_and_not_before(client, at_work):
    sell(client, at_work, 0)
    sell(client, at_work, 1, after_ms=100 * HOUR)
    for number in range(2, 35):
        sell(client, at_work, number, after_ms=24 * HOUR)
    refuse(client, at_work, 20, every_ms=9 * HOUR)
    assert problems(client) == ([], [])
    for number in range(40, 80):
        sell(client, at_work, number, after_ms=24 * HOUR)
    for number in range(80, 120):
        sell(client, at_work, number, after_ms=24 * HOUR)
    refuse(client, at_work, 6, every_ms=9 * HOUR)
    assert problems(client)[0] == [REFUSED]


def test_a_source_that_never_had_a_secret_is_a_note(client, at_work):
    assert noted(client) == ([], [])
    refuse(client, at_work, 20, "off", every_ms=HOUR)
    assert problems(client) == ([], [])
    public, (owner,) = noted(client)
    assert public == ["A source received requests, but has no secret."]
    assert "SHOP_WEBHOOK_SECRET is not set" in owner


def test_a_secret_that_was_lost_is_red_and_the_setting_is_named(client, at_work):
    """The source has had events, but its variable is gone."""
    for number in range(2):
        sell(client, at_work, number, after_ms=HOUR)
    write(at_work, update(source_counters).values(source="off"))
    refuse(client, at_work, 6, "off", every_ms=HOUR)
    (owner,) = problems(client)[1]
    assert "The likely cause is that its secret was lost: SHOP_WEBHOOK_SECRET is not set" in owner


def test_of_a_source_whose_file_is_gone_nothing_is_told(client, at_work):
    refuse(client, at_work)
    an_event(at_work, source="gone", verdict="unmatched", reason="a rule failed", received_at_ms=at_work.clock.now_ms)
    write(at_work, update(source_counters).values(source="gone"))
    assert problems(client) == ([], [])
    assert noted(client) == ([], [])
    assert "gone" not in client.get("/status", headers=ADMIN).text
    assert 'bridge_webhooks_refused_total{source="gone"}' not in client.get("/metrics", headers=ADMIN).text


def test_a_refused_reload_is_red_whichever_process_saw_it(client, at_work):
    at_work.rules_fault = "mappings/shop.yaml:3:1: unknown key"
    public, owner = problems(client)
    assert "refused" in public[0]
    assert "mappings" not in public[0].replace("mapping files", "")
    assert at_work.rules_fault in owner[0]
    at_work.rules_fault = None
    beat(at_work, rules_fault="mappings/other.yaml:1:1: empty")
    assert problems(client)[0]
    beat(at_work)
    assert problems(client) == ([], [])


def test_a_database_that_is_away_is_red(client, at_work):
    real, at_work.store = at_work.store, Gone(StoreUnavailable("connection refused"))
    assert client.get("/status").json == {
        "ok": False,
        "problems": ["The database cannot be used."],
        "notes": [],
    }
    at_work.store = real
    assert problems(client) == ([], [])


def test_the_owner_sees_which_keys_and_secrets_are_set_but_never_them(client, at_work):
    answer = client.get("/status", headers=ADMIN)
    assert answer.json["sources"]["shop"]["secret"] == "set"
    assert answer.json["sources"]["off"]["secret"] == "SHOP_WEBHOOK_SECRET is not set"
    assert answer.json["destinations"]["default"]["key"] == "set"
    for hidden in ("s3cret-of-the-shop", "df_hidden", "admin-token", "links-token"):
        assert hidden not in answer.text


# ----------------------------------------------------------------------------------------------------------- metrics


def samples(answer):
    families = text_string_to_metric_families(answer.text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_metrics_tell_the_numbers_of_the_database(client, at_work):
    client.post("/webhooks/shop", data=sale(), headers=signed(sale()))
    client.post("/webhooks/shop", data=sale(), headers=signed(sale()))
    client.post("/webhooks/shop", data=sale())
    at_work.counters.flush(at_work.store)
    a_goal(at_work, state="delivered")
    told = samples(client.get("/metrics", headers=ADMIN))
    assert told["bridge_webhooks_accepted_total", "shop"] == 1
    assert told["bridge_webhooks_duplicate_total", "shop"] == 1
    assert told["bridge_webhooks_refused_total", "shop"] == 1
    assert told["bridge_events", "shop", "received", ""] == 1
    assert told["bridge_goals", "default", "delivered"] == 1
    assert told["bridge_workers",] == 1


@pytest.fixture
def open_client(bridge):
    """Of a bridge without an admin token."""
    bridge.settings = table.load({})
    return web.create(bridge).test_client()


CURL = {"User-Agent": "curl/8.5.0", "Accept": "*/*"}
PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/3.5.0",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}
FIREFOX = {
    "Accept-Language": "en", "Sec-Fetch-Mode": "navigate", "Sec-CH-UA-Platform": '"Linux"', "Cookie": "a=b", "DNT": "1",
    "Upgrade-Insecure-Requests": "1", "Priority": "u=0, i", "Cache-Control": "no-cache", "Connection": "keep-alive",
}  # fmt: skip


def metrics(client, peer="127.0.0.1", headers=None, **environ):
    return client.get("/metrics", headers=headers or {}, environ_overrides={"REMOTE_ADDR": peer} | environ).status_code


@pytest.mark.parametrize("headers", [{}, CURL, PROMETHEUS, FIREFOX], ids=["none", "curl", "prometheus", "firefox"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_without_an_admin_token_metrics_are_for_this_machine(open_client, peer, headers):
    assert metrics(open_client, peer, headers) == 200


@pytest.mark.parametrize("peer", ["203.0.113.7", "10.0.0.1", "::2", "", "localhost", "::ffff:10.0.0.1"])
def test_whoever_connects_from_elsewhere_sees_none(open_client, peer):
    assert metrics(open_client, peer) == 401
    assert metrics(open_client, peer, {"X-Forwarded-For": "127.0.0.1"}) == 401


OF_PROXIES = """
    Forwarded X-Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Port X-Forwarded-Server
    X-Forwarded-Prefix X-Forwarded-By X-Forwarded-Client-Cert X-Real-Ip Via X-Via CF-Connecting-IP CF-Ray CF-Visitor
    CDN-Loop True-Client-IP X-Client-IP Client-IP X-Cluster-Client-IP X-Originating-IP X-Remote-Addr X-Remote-IP X-Host
    X-Original-Host X-Original-URL X-Original-Forwarded-For X-Rewrite-URL X-Scheme X-Request-Start X-Request-Id
    X-Amzn-Trace-Id X-Cloud-Trace-Context X-Envoy-External-Address X-Envoy-Original-Path X-Azure-ClientIP X-Azure-FDID
    X-ARR-LOG-ID Fly-Client-IP Fly-Region Fastly-Client-IP X-Varnish X-Heroku-Router X-Vercel-Forwarded-For
    X-NF-Client-Connection-IP X-Railway-Edge Render-Proxy-TTL X-Appengine-User-IP Traceparent B3 Proxy-Authorization
    Proxy-Connection X-ProxyUser-Ip WL-Proxy-Client-IP Surrogate-Capability Ngrok-Trace-Id X-Anything-At-All Origin
"""


@pytest.mark.parametrize("name", one_in(4, OF_PROXIES.split()))
def test_any_header_that_no_client_sends_by_itself_may_be_a_proxys(open_client, name):
    assert metrics(open_client, headers={name: "1"} | CURL) == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:8000", 200), ("LocalHost.:8000", 200), ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("bridge.localhost", 200), ("127.1.2.3", 200),
        ("rebound.example:8000", 401), ("localhost.example", 401), ("127.0.0.1.example", 401), ("10.0.0.1", 401),
        ("[::2]", 401), ("localhost/", 401), ("u@localhost", 401), ("", 401), ("metrics.example", 401),
    ],
)  # fmt: skip
def test_a_page_whose_name_was_bound_to_this_machine_sees_none(open_client, host, status):
    assert metrics(open_client, headers=CURL, HTTP_HOST=host) == status


def test_nginx_as_it_is_installed_speaks_an_old_http_and_is_no_neighbour(open_client):
    assert metrics(open_client, headers=CURL, SERVER_PROTOCOL="HTTP/1.0") == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (CURL, 401),
        (LINKS, 401),
        (ADMIN, 200),
        (ADMIN | {"X-Forwarded-For": "203.0.113.7"}, 200),
        ({"Authorization": "bearer  admin-token "}, 200),
        *(({"Authorization": f"Bearer {token}"}, 401) for token in ("wrong", "", "ÿ", "x" * 8_000, "admin-token2")),
        ({"Authorization": "Basic admin-token"}, 401),
    ],
)
def test_with_an_admin_token_metrics_are_for_its_bearer_alone(client, headers, status):
    for peer in ("127.0.0.1", "203.0.113.7"):
        assert metrics(client, peer, headers) == status


def test_a_token_beyond_ascii_is_right_by_its_bytes(bridge):
    bridge.settings = table.load({"BRIDGE_ADMIN_TOKEN": "schlüssel-für-alles"})
    client = web.create(bridge).test_client()
    said = "Bearer schlüssel-für-alles".encode().decode("latin-1")
    assert metrics(client, HTTP_AUTHORIZATION=said) == 200
    assert metrics(client, HTTP_AUTHORIZATION="Bearer schlüssel-für-alles") == 401  # the same in Latin-1


@pytest.mark.parametrize("token", ["", " ", "None", "admin-token"])
def test_without_an_admin_token_no_token_opens_anything(open_client, token):
    headers = {"Authorization": f"Bearer {token}"}
    assert metrics(open_client, headers=headers) == 401
    assert open_client.get("/status", headers=headers).json.keys() == {"ok", "problems", "notes"}
    assert open_client.post("/links/shop", json={}, headers=headers).status_code == 401


def test_wrong_tokens_are_counted_once_a_request_and_noted(client, at_work):
    for address, headers in (("/status", {"Authorization": "Bearer x"}), ("/readyz", {"Authorization": "Bearer"})):
        client.get(address, headers=headers)
    client.post("/links/shop", json={}, headers={"Authorization": "Bearer "})
    client.get("/metrics", headers=LINKS)  # the wrong one of two right ones
    client.get("/metrics")
    at_work.counters.flush(at_work.store)
    at_work.counters.flush(at_work.store)
    assert samples(client.get("/metrics", headers=ADMIN))["bridge_wrong_tokens_total",] == 3
    assert client.get("/status").json["notes"] == ["Wrong bearer tokens were refused."]
    (told,) = client.get("/status", headers=ADMIN).json["notes"]
    assert told.startswith("3 wrong bearer tokens were refused so far, the last one 0 s ago. If it is not a script")
    assert problems(client) == ([], [])
    at_work.clock.advance(25 * 60 * MIN)
    assert client.get("/status").json["notes"] == []


# ------------------------------------------------------------------------------------------------------------- links


def hint(**fields):
    return {"visitor": VISITOR, "kind": "customer", "key": "c_1", **fields}


@pytest.mark.parametrize("token", [ADMIN, LINKS])
@pytest.mark.parametrize("address", ["/links/shop", "/links/shop/"])
def test_a_link_is_bound_and_wakes_the_worker(client, bridge, token, address):
    answer = client.post(address, json=hint(), headers=token)
    assert (answer.status_code, answer.json) == (200, {"status": "linked"})
    assert bridge.woken == 1
    with bridge.store.read() as conn:
        bound = conn.exec_driver_sql("SELECT key FROM link_keys").scalars().all()
    assert bound == ["shop:live:customer:c_1"]


@pytest.mark.parametrize(
    ("user", "key"), [("user_abc", "user:default:live:user_abc"), ("42", "user:default:live:shop:42")], ids=str
)
def test_a_user_is_bound_for_all_sources_of_the_website_unless_it_is_a_number(client, bridge, user, key):
    assert client.post("/links/shop", json=hint(kind="user", key=user), headers=LINKS).status_code == 200
    with bridge.store.read() as conn:
        assert conn.exec_driver_sql("SELECT key FROM link_keys").scalars().all() == [key]


def test_a_user_is_not_bound_while_users_find_nobody(client, bridge):
    bridge.settings = replace(bridge.settings, bridge_match_user="off")
    answer = client.post("/links/shop", json=hint(kind="user", key="user_abc"), headers=LINKS)
    assert (answer.status_code, "BRIDGE_MATCH_USER is off" in answer.text) == (400, True)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "links-token"}])
def test_a_link_needs_a_token(client, headers):
    answer = client.post("/links/shop", json=hint(), headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "JSON"),
        (b"[]", "fields"),
        (b"\xff", "JSON"),
        (b"[" * 100_000, "JSON"),
        (hint(visitor=""), "visitor"),
        (hint(visitor=7), "visitor"),
        (hint(visitor="undefined"), "visitor"),
        (hint(visitor="s" + VISITOR[1:]), "visitor"),
        (hint(kind="Not a kind"), "kind"),
        (hint(key=" "), "key"),
        (hint(key="null"), "key"),
        (hint(kind="user", key="guest"), "your app's own user id"),
        (hint(kind="user", key="Ann+1@Example.com"), "an e-mail address cannot be bound"),
        (hint(kind="email", key="ann@example.com"), "an e-mail address cannot be bound"),
        (hint(key="Ann@bücher.example"), "an e-mail address cannot be bound"),
        (hint(more=1), "fields"),
    ],
)
def test_a_link_that_cannot_be_meant_is_400_with_a_sentence(client, body, says):
    options = {"data": body} if isinstance(body, bytes) else {"json": body}
    answer = client.post("/links/shop", headers=LINKS, **options)
    assert answer.status_code == 400
    assert says in answer.text


def test_a_link_to_an_unknown_source_is_404(client):
    assert client.post("/links/nobody", json=hint(), headers=LINKS).status_code == 404


def test_a_link_that_cannot_be_stored_is_503(client, bridge):
    real, bridge.store = bridge.store, Gone(StoreUnavailable("away"))
    answer = client.post("/links/shop", json=hint(), headers=LINKS)
    bridge.store = real
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


# -------------------------------------------------------------------------------------------------------- everything


@pytest.mark.parametrize("address", ["/", "/nothing", "/webhooks", "/static/x", "/webhooks/a/b", "/links"])
def test_any_other_address_is_404_with_a_sentence_and_safe_headers(client, address):
    answer = client.get(address)
    assert answer.status_code == 404
    assert answer.content_type.startswith("text/plain")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_page_that_fails_is_503_without_a_word_of_why(client, bridge, lines):
    del bridge.rules
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert "attribute" not in answer.text
    assert lines[-1]["event"] == "request.failed"


def test_no_route_redirects(client):
    for rule in client.application.url_map.iter_rules():
        address = rule.rule.replace("<source>", "shop")
        for variant in (address, address.rstrip("/") + "/"):
            assert client.get(variant).status_code not in range(300, 400)


@pytest.mark.parametrize("address", ["/webhooks//shop", "/webhooks/shop//", "/links//shop", "/status//", "/x//y"])
def test_a_doubled_slash_is_no_redirect(client, address):
    """A provider that is sent elsewhere gives the delivery up."""
    for method in (client.get, client.post):
        answer = method(address)
        assert answer.status_code in (404, 405)
        assert "Location" not in answer.headers


def test_a_clock_that_jumped_is_a_note_for_as_long_as_forgetting_waits(client, at_work):
    now = at_work.clock.now_ms
    wait = jumps.Wait("jumped", since_ms=now - 3 * 60 * MIN, ran_ms=2 * 60 * MIN, counted_at_ms=now)
    with at_work.store.write() as conn:
        jumps.keep(conn, jumps.ClockState(heartbeat_ms=now, wait=wait))
    assert problems(client) == ([], [])
    (told,) = client.get("/status", headers=ADMIN).json["notes"]
    assert told.startswith("The clock jumped by more than an hour, 3 h ago, so nothing is deleted by age until")
    assert "(2 h so far)" in told
    (sentence,) = client.get("/status").json["notes"]
    assert sentence == "The clock jumped or the bridge stood still, so nothing is deleted by age for now."


def test_events_of_which_a_rule_failed_are_a_note_and_turn_nothing_red(client, at_work):
    reason = 'the rule any failed: "日本" has no letter'
    for number, age_ms in enumerate((1, 2, 25 * 60 * MIN)):
        keys = {"dedupe_key": f"f{number}", "dedupe_key_2": f"f{number}"}
        at_ms = at_work.clock.now_ms - age_ms
        an_event(at_work, verdict="unmatched", reason=reason, received_at_ms=at_ms, **keys)
    assert problems(client) == ([], [])
    (told,) = client.get("/status", headers=ADMIN).json["notes"]
    assert told.startswith(f"In the last 24 hours 2 events of shop made no goal: {reason}. To list them:")
    assert client.get("/status").json["notes"] == ["Events made no goal because a rule failed."]
