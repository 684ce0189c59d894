"""What is right by the grammar and hardly meant gets a sentence; what is meant gets none."""

from __future__ import annotations

import json

import pytest

from bridge import sources
from bridge.cli import main
from bridge.rules import load

STRIPE = """provider: stripe
secret: ${STRIPE_WEBHOOK_SECRET}
goals:
  - goal: g
    event: checkout.session.completed
"""


def suspicions(text, name="stripe.yaml"):
    return [line.split(": ", 1)[1] for line in load({name: text}, {}, sources.presets()).suspicions]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "metadata: {amount: data.object.amount_total}",
            '"data.object.amount_total" is sent literally; for the value write "{data.object.amount_total}"',
        ),
        ("metadata: {plan: value.plan}", '"value.plan" is sent literally; for the value write "{value'),
        ("metadata: {seats: was.value.seats}", '"was.value.seats" is sent literally'),
        ("metadata: {item: 'data.object.lines.data[0].price'}", "is sent literally"),
        ("description: data.object.id", '"data.object.id" is sent literally'),
        ('metadata: {x: "{{data.object.id}}"}', '"{{data.object.id}}" is sent as "{data.object.id}"; for the value'),
        ('metadata: {x: "{{ value.plan }}!"}', '"{{ value.plan }}" is sent as "{value.plan}"'),
        ('metadata: {x: "${value.plan}"}', '"${value.plan}" puts a "$" before the value'),
        ('when: {data.object.a: ">= 100"}', '">= 100" is compared as a string; write data.object.a: {gte: 100}'),
        ('when: {data.object.a: {not: "<5"}}', '"<5" is compared as a string; write data.object.a: {lt: 5}'),
        ('when: {any: [{data.object.mode: "!= payment"}]}', '"!= payment" is compared as a string'),
        ('when: {value.amount: "> abc"}', 'and "abc" is not an amount; write value.amount: {gt: 1000 USD}'),
        ('when: {value.amount: "= much"}', 'and "much" is not an amount; write value.amount: 1000 USD'),
        ('when: {value.amount: "> 100 USD"}', '"> 100 USD" is compared as a string; write value.amount: {gt: 100 USD}'),
        ("when: {value.amount: abc}", '"abc" is not an amount, so value.amount never equals it'),
        ('when: {was.value.monthly: {not: "$100"}}', '"$100" is not an amount, so was.value.monthly never equals it'),
        ('when: {value.amount: [100 USD, "1,000 USD"]}', '"1,000 USD" is not an amount'),
        ("metadata: {mode: false}", '"mode: false" sends the word "false": it takes an entry away only from a shipped'),
        ("when: {value.amount: {gte: 1000}}", "value.amount is compared with 1000 of any currency; write 1000 USD"),
        ("when: {value.monthly: 49}", "value.monthly is compared with 49 of any currency"),
    ],
)  # fmt: skip
def test_what_is_hardly_meant_gets_a_sentence(line, sentence):
    (found,) = suspicions(f"{STRIPE}    {line}\n")
    assert sentence in found


@pytest.mark.parametrize(
    ("provider", "event", "meant"),
    [
        ("stripe", "checkout.sesion.completed", "checkout.session.completed"),
        ("lemonsqueezy", "subscription_canceled", "subscription_cancelled"),
        ("polar", "subscription.cancelled", "subscription.canceled"),
        ("paddle", "transaction.complete", "transaction.completed"),
        ("clerk", "user.create", "user.created"),
        ("tally", "FORM_RESPONES", "FORM_RESPONSE"),
        ("calcom", "BOOKING_CANCELED", "BOOKING_CANCELLED"),
        ("revenuecat", "INITIAL_PURCHAS", "INITIAL_PURCHASE"),
    ],
)
def test_a_misspelt_event_type_is_named(provider, event, meant):
    text = f"provider: {provider}\ngoals:\n  - {{goal: g, event: {event}}}\n"
    assert suspicions(text) == [f'{provider} is not known to send "{event}"; did you mean "{meant}"?']


PLAUSIBLE = [
    ("stripe", "goal: big_purchase, event: checkout.session.completed, when: {value.amount: {gte: 1000 USD}}"),
    ("stripe", "goal: big, event: checkout.session.completed, when: {value.amount: {gte: 100}, value.currency: EUR}"),
    ("stripe", "goal: paid, event: invoice.paid, when: {value.amount: {gt: 0}}, metadata: [amount, currency, plan]"),
    ("stripe", "goal: free, event: checkout.session.completed, when: {value.amount: 0}"),
    ("stripe", "goal: 'bought_{value.plan}', id: bought, event: checkout.session.completed"),
    ("stripe", "goal: g, event: customer.subscription.updated, when: {value.seats: {changed: up}}"),
    ("stripe", "goal: g, event: customer.subscription.updated, metadata: {from: '{was.value.plan}'}"),
    ("stripe", "goal: g, event: charge.refunded, metadata: {site: shop.example.com, page: /pricing}"),
    ("stripe", "goal: g, event: charge.refunded, metadata: {version: v1.2.3, build: 2026.05}"),
    ("stripe", "goal: g, event: charge.refunded, metadata: {source: stripe.com, note: 'e.g. refunds'}"),
    ("stripe", "goal: g, event: charge.refunded, metadata: {host: data-team, id: '{data.object.id}'}"),
    ("stripe", "goal: g, event: charge.refunded, metadata: {json: '{{\"a\": 1}}'}"),
    ("stripe", "goal: g, event: charge.refunded, metadata: {css: 'a {{ color: red; }}'}"),
    ("stripe", "goal: g, event: charge.refunded, metadata: {price: '$49', range: '10-20', cmp: '>= 3 seats'}"),
    ("stripe", "goal: g, event: charge.refunded, description: 'Refund of {data.object.id}.'"),
    ("stripe", "goal: g, event: charge.refunded, description: 'See docs.stripe.com/refunds'"),
    ("stripe", "goal: g, event: checkout.session.completed, when: {data.object.metadata.tier: pro.yearly}"),
    ("stripe", "goal: g, event: checkout.session.completed, when: {data.object.status: {not: {prefix: warning_}}}"),
    ("stripe", "goal: g, event: checkout.session.completed, when: {data.object.url: {contains: '=>'}}"),
    ("stripe", "goal: g, event: checkout.session.completed, when: {data.object.amount_total: {gte: 100}}"),
    ("stripe", "goal: g, event: checkout.session.completed, when: {data.object.mode: [payment, subscription]}"),
    ("stripe", "goal: g, event: checkout.session.completed, when: {data.object.metadata.note: '-> north'}"),
    ("stripe", "goal: g, event: 'customer.*', when: {data.object.email: {suffix: '@example.com'}}"),
    ("stripe", "goal: g, event: customer.subscription.created, when: {data.object.items.data.*.price.id: price_1}"),
    ("stripe", "goal: g, event: invoice.paid, when: {data.object.a: {after: data.object.b, within: 14d}}"),
    ("stripe", "goal: g, event: customer.subscription.deleted, when: {any: [{data.object.a: 1}, {data.object.b: 2}]}"),
    ("stripe", "goal: g, event: customer.subscription.deleted, once_per: data.object.id"),
    ("stripe", "goal: g, event: customer.subscription.deleted, visitor: [data.object.metadata.my_own_field]"),
    ("stripe", "goal: g, event: invoice.paid, when: {value.amount: {gt: 10 USD, lt: 100 USD}}"),
    ("stripe", "goal: g, event: invoice.paid, when: {any: [{value.amount: 49 USD}, {value.amount: 45 EUR}]}"),
    ("stripe", "goal: g, event: invoice.some_new_thing"),
    ("lemonsqueezy", "goal: g, event: order_created, metadata: {coupon: '{data.attributes.discount_total}'}"),
    ("lemonsqueezy", "goal: g, event: subscription_created, metadata: {product: lemon.pro}"),
    ("lemonsqueezy", "goal: g, event: order_created, when: {data.attributes.total: {gte: 10000}}"),
    ("polar", "goal: purchase, event: order.paid, metadata: {product: '{data.product.name}'}"),
    ("polar", "goal: g, event: order.paid, when: {data.billing_reason: purchase}"),
    ("polar", "goal: g, event: order.refunded, metadata: {reason: customer.request}"),
    ("paddle", "goal: g, event: transaction.completed, when: {data.origin: web}"),
    ("paddle", "goal: g, event: subscription.canceled, metadata: {reason: '{data.a.action or data.status}'}"),
    ("gumroad", "goal: sale, event: sale, metadata: {product: '{body.product_name}'}"),
    ("clerk", "goal: sign_up, event: user.created, metadata: {via: app.example.com}"),
    ("clerk", "goal: g, event: user.created, when: {data.email_addresses.*.email_address: {suffix: .edu}}"),
    ("calcom", "goal: booking, event: BOOKING_CREATED, metadata: {type: '{payload.type}'}"),
    ("calcom", "goal: no_show, event: BOOKING_NO_SHOW_UPDATED"),
    ("tally", "goal: lead, event: FORM_RESPONSE, metadata: {form: '{data.formName}', kind: contact.form}"),
    ("typeform", "goal: lead, event: form_response, when: {form_response.form_id: abc}"),
    ("calendly", "goal: booking, event: invitee.created, metadata: {name: calendly.meeting}"),
    ("shopify", "goal: order, event: orders/paid, metadata: {total: '{total_price} {currency}'}"),
    ("github", "goal: star, event: star, when: {action: created}"),
    ("creem", "goal: purchase, event: checkout.completed, metadata: {product: '{object.product.name}'}"),
    ("whop", "goal: purchase, event: payment.succeeded"),
    ("revenuecat", "goal: purchase, event: INITIAL_PURCHASE, metadata: {store: '{event.store}'}"),
    ("kofi", "goal: donation, event: Donation, metadata: {amount: '{amount} {currency}'}"),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "goal"), PLAUSIBLE, ids=[f"{i}-{one[0]}" for i, one in enumerate(PLAUSIBLE)])
def test_what_is_meant_gets_none(provider, goal):
    extra = "visitor: visitor\n" if provider in ("github", "kofi") else ""
    assert suspicions(f"provider: {provider}\n{extra}goals:\n  - {{{goal}}}\n") == []


def test_there_are_fifty_of_them():
    assert len(PLAUSIBLE) >= 50


@pytest.fixture
def checked(tmp_path, monkeypatch, capsys):
    def run(*words, **environ):
        (tmp_path / "mappings").mkdir(exist_ok=True)
        (tmp_path / "mappings" / "stripe.yaml").write_text(STRIPE)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DATAFAST_API_KEY", "df_key_of_a_site")
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        code = main(["check", "--json", *words])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BRIDGE_RETENTON_DAYS", "BRIDGE_RETENTION_DAYS"),
        ("DATAFAST_WEBSIT_ID", "DATAFAST_WEBSITE_ID"),
        ("BRIDGE_MAPPING", "BRIDGE_MAPPINGS"),
        ("BRDIGE_ADMIN_TOKEN", "BRIDGE_ADMIN_TOKEN"),
        ("bridge_retention_days", "BRIDGE_RETENTION_DAYS"),
        ("DATAFAST_APIURL", "DATAFAST_API_URL"),
        ("DATAFST_TEST_API_KEY", "DATAFAST_TEST_API_KEY"),
        ("STRIPE_WEBHOK_SECRET", "STRIPE_WEBHOOK_SECRET"),
        ("STRIPE_WEBHOOK_SECERT", "STRIPE_WEBHOOK_SECRET"),
        ("STIRPE_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET"),
        ("STRIPE_WEB_HOOK_SECRET", "STRIPE_WEBHOOK_SECRET"),
        ("STRIPE_WEBHOOK_SECRETS", "STRIPE_WEBHOOK_SECRET"),
    ],
)
def test_a_misspelt_variable_is_named_and_fails_a_strict_check(checked, name, meant):
    code, said = checked(**{name: "3"})
    sentence = f"{name} is set, but nothing reads it; did you mean {meant}?"
    assert (code, sentence in said["warnings"]) == (0, True)
    code, said = checked("--strict")
    assert (code, said["faults"]) == (1, [sentence])


def test_a_secret_that_is_not_set_yet_is_no_reason_to_fail_a_strict_check(checked):
    code, said = checked("--strict")
    assert (code, said["faults"]) == (0, [])
    assert any("STRIPE_WEBHOOK_SECRET is not set" in warning for warning in said["warnings"])


def test_variables_of_other_programs_are_left_alone(checked):
    others = ("DATAFAST_DOMAIN", "BRIDGE_URL", "BRIDGE_NETWORK", "DATABASE_URI", "PORTS", "SECRET_KEY", "GITHUB_SECRET")
    code, said = checked("--strict", **dict.fromkeys(others, "x"))
    assert (code, said["faults"]) == (0, [])
