"""Payments and dry rules with `serve` as a process, the stand-in for DataFast, and the commands."""

from __future__ import annotations

import json

import pytest
import requests
from running import ALICE, environment, eventually
from test_payments import FILE

SECRET = "a secret of the shop"


@pytest.mark.long
def test_a_payment_goes_out_and_what_was_dry_is_sent_by_a_command(machine, sqlite_url, command):
    (machine.folder / "mappings").mkdir()
    (machine.folder / "mappings" / "shop.yaml").write_text(FILE.replace("    max_age: 2d\n", ""))
    datafast = machine.datafast()
    environ = environment(datafast, sqlite_url, machine.folder / "mappings", SHOP_WEBHOOK_SECRET=SECRET)
    web = machine.web(environ)
    datafast.tell("faults", {"kind": "recorded_500", "path": "/payments"})  # its answer is lost, and it is sent again

    def payments():
        return requests.get(f"{datafast.url}/__fake__/payments", timeout=10).json()["payments"]

    order = {"type": "paid", "id": "e1", "order": "o1", "cents": 2900, "currency": "usd", "visitor": ALICE}
    for body in (order, order | {"id": "e2", "test": True, "order": "o2"}):
        assert web.post("shop", json.dumps(body).encode(), {"x-token": SECRET}).status_code == 200
    (payment,) = eventually(payments, what="the payment is recorded")
    assert (payment["amount"], payment["transaction_id"]) == (29, "o1")
    eventually(lambda: web.told("attempt", state="pending"), what="its answer was lost")
    assert command("goals", "retry", "--yes", "goal_1", **environ)[0] == 0  # not to wait for the next try
    eventually(lambda: web.told("attempt", state="delivered"), what="it was taken once")
    assert [row["transaction_id"] for row in payments()] == ["o1"]

    code, out = command("goals", "list")
    assert code == 0
    assert "payment 29.00 USD" in out
    assert "bridge_payments" in web.get("/metrics", admin=True).text
    why = command("why", "goal_1")[1]
    assert "payment 29.00 USD" in why
    assert "duplicate transaction_id" in why
    assert "its payment is never sent" in command("why", "e2")[1]

    asked = command("goals", "send", "--rule", "bought")
    assert asked[0] == 2
    assert "Send 1 goal of bought?" in asked[1]
    sent = json.loads(command("goals", "send", "--rule", "bought", "--yes", "--json")[1])
    assert [row["outcome"] for row in sent["goals"]] == ["queued"]
    eventually(lambda: [goal["name"] for goal in datafast.goals()] == ["bought"], what="what was dry arrives")
    nothing = command("goals", "send", "--rule", "bought", "--yes")
    assert (nothing[0], "No goal of the rule bought is kept" in nothing[1]) == (1, True)
