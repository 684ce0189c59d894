"""The snippet in Chromium: a shop with a strict policy, whose pages have each tool's links, embeds, popups and forms.

The browser's internet is a server of ours, which answers as the shop and as every tool, and keeps what it was asked. An
error in a page and everything that the policy blocks fails the test.
"""

from __future__ import annotations

from itertools import count
from urllib.parse import parse_qsl, urlsplit

import pytest
from flask import Flask

from bridge import snippet, web

pytestmark = pytest.mark.browser
VISITOR = "3f2c8d0e-5f0b-4a63-9e59-0d6b1f8b7c11"
MARKED = f"dfv_{VISITOR}"
CAL = f"metadata%5Bdatafast_visitor_id%5D={VISITOR}&datafast_visitor_id={VISITOR}"
POLICY = (
    "default-src 'none'; script-src 'self' 'HASH' https://hooks.example; frame-src https:; form-action https:;"
    " base-uri 'none'; require-trusted-types-for 'script'"
)

PAGE = '<!doctype html><head>{head}</head><body>{body}<script src="/page.js"></script></body>'
# Tool, address, what is added to it.
LINKS = (
    ("stripe", "https://buy.stripe.com/test_1", f"?client_reference_id={MARKED}"),
    ("stripe", "https://buy.stripe.com/test_1?prefilled_email=a%40b.c", f"&client_reference_id={MARKED}"),
    ("stripe", "https://donate.stripe.com/test_2", f"?client_reference_id={MARKED}"),
    ("lemonsqueezy", "https://acme.lemonsqueezy.com/buy/1c2d",
     f"?checkout%5Bcustom%5D%5Bdatafast_visitor_id%5D={VISITOR}"),
    ("polar", "https://buy.polar.sh/polar_cl_1", f"?reference_id={MARKED}"),
    ("gumroad", "https://acme.gumroad.com/l/pro?wanted=true", f"&datafast_visitor_id={VISITOR}"),
    ("creem", "https://www.creem.io/payment/prod_1", f"?metadata%5Bdatafast_visitor_id%5D={VISITOR}"),
    ("dodo", "https://checkout.dodopayments.com/buy/pdt_1?quantity=1", f"&metadata_datafast_visitor_id={VISITOR}"),
    ("calcom", "https://cal.com/acme/demo", f"?{CAL}"),
    ("calcom", "https://acme.cal.com/demo?month=2026-12", f"&{CAL}"),
    ("calendly", "https://calendly.com/acme/30min?utm_source=site", f"&utm_content={MARKED}"),
    ("savvycal", "https://savvycal.com/acme/chat", f"?metadata%5Bdatafast_visitor_id%5D={VISITOR}"),
    ("tally", "https://tally.so/r/mOabc", f"?datafast_visitor_id={VISITOR}"),
    ("typeform", "https://form.typeform.com/to/aBc", f"#datafast_visitor_id={VISITOR}"),
    ("typeform", "https://acme.typeform.com/to/aBc?x=1#plan=pro", f"&datafast_visitor_id={VISITOR}"),
    ("fillout", "https://acme.fillout.com/t/abc", f"?datafast_visitor_id={VISITOR}"),
)  # fmt: skip
UNTOUCHED = (
    "https://buy.stripe.com/test_1?client_reference_id=user_1",
    "https://calendly.com/acme/30min?utm_content=newsletter",
    "https://acme.typeform.com/to/aBc#datafast_visitor_id=other",
    "https://acme.typeform.com/to/aBc?datafast_visitor_id=other",
    "https://cal.com/acme/demo?metadata[datafast_visitor_id]=other",
    "https://acme.lemonsqueezy.com/checkout/custom/1c2d?expires=1&signature=abc",
    "https://app.lemonsqueezy.com/my-orders",
    "https://acme.gumroad.com/",
    "https://evil-cal.com/acme",
    "https://cal.com.evil.example/acme",
    "https://evil.example/?next=https://buy.stripe.com/test_1",
    "https://checkout.stripe.com/c/pay/cs_1",
    "https://app.kit.com/forms/1/subscriptions",
    "mailto:a@cal.com",
    "javascript:void(0)",
    "https://[",
    "/pricing",
    "#top",
    "",
)


def with_visitor(address):
    """An address as the tests' tables write it."""
    return next(address + added for _, known, added in LINKS if known == address)


class Visit:
    """A shop of its own, whose page has the snippet in its head, visited by somebody whom DataFast knows."""

    def __init__(self, page, internet, number):
        self.page = page
        self.shop = f"https://s{number}.shop.example"  # one site, so that the browser needs one process
        self._internet = internet
        self.files = internet.files
        self.policy = POLICY
        self.problems = []

    @property
    def requests(self):
        """What the shop's page asked others for: (method, address, body)."""
        return [
            asked[1:] for asked in self._internet.requests if asked[0] == f"{self.shop}/" and self.shop not in asked[2]
        ]

    def open(self, body="", *, script="", tools=snippet.TOOLS, cookie=VISITOR, head=None):
        """script: the page's own, a file at the end; head: what stands there instead of the inline snippet."""
        if cookie is not None:
            self.set_cookie(cookie)
        html = snippet.inline(tools)
        policy = self.policy.replace("HASH", snippet.integrity(snippet.script(tools)))
        self.files |= {
            f"{self.shop}/": (
                "text/html",
                PAGE.format(head=html if head is None else head, body=body),
                {"Content-Security-Policy": policy},
            ),
            f"{self.shop}/page.js": ("text/javascript", script, {}),
        }
        self.page.goto(self.shop)
        return self

    def set_cookie(self, value, name="datafast_visitor_id"):
        self.page.context.add_cookies([{"name": name, "value": value, "url": self.shop}])

    def wait(self, condition):
        """Until it holds; a browser that hangs fails."""
        for _ in range(400):
            if condition():
                return
            self.page.wait_for_timeout(25)
        pytest.fail(f"it never happened: {self.requests}, {self.problems}, {[one.url for one in self.page.frames]}")

    def asked(self):
        return [address for _, address, _ in self.requests]

    def attribute(self, selector, name):
        return self.page.get_attribute(selector, name)


@pytest.fixture(scope="module")
def page(browser):
    """One page for all tests, each of which has a shop of its own: a new one costs more than what is tested."""
    with browser.new_context(ignore_https_errors=True) as context:
        yield context.new_page()


NUMBERS = count()


@pytest.fixture
def visit(page, internet):
    made = Visit(page, internet, next(NUMBERS))

    def on_error(error):
        made.problems.append(str(error))

    def on_line(line):
        if line.type == "error":
            made.problems.append(line.text)

    page.on("pageerror", on_error)
    page.on("console", on_line)
    yield made
    page.goto("about:blank")
    page.remove_listener("pageerror", on_error)
    page.remove_listener("console", on_line)
    for tab in page.context.pages[1:]:
        tab.close()
    assert made.problems == []


def links(addresses, around="<p>{}</p>"):
    return "".join(around.format(f'<a href="{address}" target="_blank">{n}</a>') for n, address in enumerate(addresses))


CLICK_ALL = """() => [...document.querySelectorAll("a")].map((link) => {
  link.addEventListener("click", (event) => event.preventDefault(), { once: true });
  link.click();
  return link.getAttribute("href");
})"""

# ------------------------------------------------------------------------------------------------------------- links


def test_a_link_of_each_tool_has_the_visitor_when_it_is_clicked_and_not_before(visit):
    visit.open(links(known for _, known, _ in LINKS))
    before = visit.page.eval_on_selector_all("a", "all => all.map((one) => one.getAttribute('href'))")
    after = visit.page.evaluate(CLICK_ALL)
    assert before == [known for _, known, _ in LINKS]
    assert after == [known + added for _, known, added in LINKS]
    assert visit.page.evaluate(CLICK_ALL) == after, "the second click finds the value there"
    assert visit.requests == []


@pytest.mark.parametrize(
    "how", ["click", "middle", *(pytest.param(one, marks=pytest.mark.long) for one in ("control", "enter"))]
)
def test_whoever_follows_a_link_arrives_with_the_visitor(visit, how):
    visit.open('<a href="https://cal.com/acme/demo"><b>Book</b></a>')
    if how == "enter":
        visit.page.focus("a")
        visit.page.keyboard.press("Enter")
    else:
        options = {"middle": {"button": "middle"}, "control": {"modifiers": ["ControlOrMeta"]}}.get(how, {})
        visit.page.click("b", **options)
    if how in ("click", "enter"):
        visit.page.wait_for_url("https://cal.com/**")
    visit.wait(lambda: visit.requests)
    assert visit.asked() == [f"https://cal.com/acme/demo?{CAL}"]


def test_the_menu_of_a_link_copies_an_address_with_the_visitor(visit):
    visit.open(links(["https://tally.so/r/mOabc"]))
    visit.page.click("a", button="right")
    assert visit.attribute("a", "href") == with_visitor("https://tally.so/r/mOabc")


def test_what_has_a_value_and_what_is_no_tools_stays_as_it_is(visit):
    visit.open(links(UNTOUCHED))
    assert visit.page.evaluate(CLICK_ALL) == list(UNTOUCHED)


@pytest.mark.parametrize(
    "around",
    ['<div data-datafast="off"><p>{}</p></div>', '<div data-datafast="off"><div data-datafast="stripe">{}</div></div>'],
)
def test_links_inside_an_element_that_opts_out_stay_as_they_are(visit, around):
    addresses = [known for _, known, _ in LINKS]
    visit.open(links(addresses, around))
    assert visit.page.evaluate(CLICK_ALL) == addresses


def test_a_field_without_a_value_is_filled_and_what_is_written_beside_it_stays(visit):
    visit.open(links(["https://buy.stripe.com/b?client_reference_id=&locale=de", "https://tally.so/r/a?b=%20[c]+d#e"]))
    empty, strange = visit.page.evaluate(CLICK_ALL)
    assert empty == f"https://buy.stripe.com/b?locale=de&client_reference_id={MARKED}"
    assert strange == f"https://tally.so/r/a?b=%20[c]+d&datafast_visitor_id={VISITOR}#e"


def test_a_domain_of_ones_own_is_a_tools_where_the_link_says_so(visit):
    visit.open(
        '<a data-datafast="stripe" href="https://pay.acme.example/b/1">1</a>'
        '<a data-datafast="nothing" href="https://pay.acme.example/b/2">2</a>'
        '<a data-datafast="stripe" href="/b/3">3</a>'
    )
    own = f"https://pay.acme.example/b/1?client_reference_id={MARKED}"
    assert visit.page.evaluate(CLICK_ALL) == [own, "https://pay.acme.example/b/2", "/b/3"]


def test_links_that_come_later_also_in_a_shadow_root_have_the_visitor(visit):
    visit.open("<main></main>")
    visit.page.evaluate(
        """() => {
          const link = (home) => {
            const made = document.createElement("a");
            made.href = "https://tally.so/r/mOabc";
            made.textContent = "form";
            home.append(made);
          };
          link(document.querySelector("main"));
          const host = document.querySelector("main").appendChild(document.createElement("div"));
          link(host.attachShadow({ mode: "open" }));
        }"""
    )
    for n in range(2):
        visit.page.locator("a").nth(n).click(button="right")
        assert visit.page.locator("a").nth(n).get_attribute("href") == with_visitor("https://tally.so/r/mOabc")


# ------------------------------------------------------------------------------------------------------------- embeds

EMBEDS = {
    "https://cal.com/acme/demo?embed=inline": f"&{CAL}",
    "https://calendly.com/acme/30min?embed_type=Inline": f"&utm_content={MARKED}",
    "https://savvycal.com/acme/chat?embed=inline": f"&metadata%5Bdatafast_visitor_id%5D={VISITOR}",
    "https://tally.so/embed/mO?hideTitle=1": f"&datafast_visitor_id={VISITOR}",
    "https://form.typeform.com/to/aBc?typeform-embed=embed-widget": f"#datafast_visitor_id={VISITOR}",
    "https://acme.fillout.com/t/abc?embed=1": f"&datafast_visitor_id={VISITOR}",
    "https://acme.lemonsqueezy.com/buy/1c2d?embed=1": f"&checkout%5Bcustom%5D%5Bdatafast_visitor_id%5D={VISITOR}",
}
# Selector of the element, HTML, attribute, its value with the visitor.
ELEMENTS = (
    ("stripe", "stripe-buy-button", "<stripe-buy-button></stripe-buy-button>", "client-reference-id", MARKED),
    ("stripe", "stripe-pricing-table", "<stripe-pricing-table></stripe-pricing-table>", "client-reference-id", MARKED),
    ("paddle", ".paddle_button", """<a class="paddle_button" data-custom-data='{"plan":"pro"}'>Buy</a>""",
     "data-custom-data", f'{{"plan":"pro","datafast_visitor_id":"{VISITOR}"}}'),
    ("gumroad", ".gumroad-button", '<a class="gumroad-button" href="https://acme.gumroad.com/l/pro">Buy</a>', "href",
     f"https://acme.gumroad.com/l/pro?datafast_visitor_id={VISITOR}"),
    ("gumroad", ".gumroad-product-embed", '<div class="gumroad-product-embed" data-gumroad-params="a=b"></div>',
     "data-gumroad-params", f"a=b&datafast_visitor_id={VISITOR}"),
    ("calcom", "[data-cal-link]", '<button data-cal-link="acme/demo">Book</button>', "data-cal-config",
     f'{{"metadata[datafast_visitor_id]":"{VISITOR}","datafast_visitor_id":"{VISITOR}"}}'),
    ("calendly", ".calendly-inline-widget", '<div class="calendly-inline-widget" data-url="https://calendly.com/a/b"></div>',
     "data-url", f"https://calendly.com/a/b?utm_content={MARKED}"),
    ("tally", "iframe[data-tally-src]", '<iframe data-tally-src="https://tally.so/embed/mO?hideTitle=1"></iframe>',
     "data-tally-src", f"https://tally.so/embed/mO?hideTitle=1&datafast_visitor_id={VISITOR}"),
    ("tally", "[data-tally-open]", '<button data-tally-open="mO">Write</button>', "data-datafast_visitor_id", VISITOR),
    ("typeform", "[data-tf-live]", '<div data-tf-live="aBc" data-tf-hidden="plan=pro"></div>', "data-tf-hidden",
     f"plan=pro,datafast_visitor_id={VISITOR}"),
    ("typeform", "[data-tf-popup]", '<button data-tf-popup="aBc">Write</button>', "data-tf-hidden",
     f"datafast_visitor_id={VISITOR}"),
    ("fillout", "[data-fillout-id]", '<div data-fillout-id="abc"></div>', "data-datafast_visitor_id", VISITOR),
)  # fmt: skip
OWN = (
    '<stripe-buy-button client-reference-id="user_1"></stripe-buy-button>',
    """<a class="paddle_button" data-custom-data='{"datafast_visitor_id":"other"}'>Buy</a>""",
    '<a class="paddle_button" data-transaction-id="txn_1">Buy</a>',
    '<a class="paddle_button" data-custom-data="{broken">Buy</a>',
    '<div class="gumroad-product-embed" data-gumroad-params="datafast_visitor_id=other"></div>',
    """<button data-cal-link="a/b" data-cal-config='{"datafast_visitor_id":"other"}'>Book</button>""",
    '<div class="calendly-inline-widget" data-url="https://calendly.com/a/b?utm_content=mail"></div>',
    '<button data-tally-open="mO" data-datafast_visitor_id="other">Write</button>',
    '<div data-tf-live="aBc" data-tf-hidden="datafast_visitor_id=other"></div>',
    '<div data-fillout-id="abc" data-datafast_visitor_id="other"></div>',
)


def test_every_tool_is_on_a_page_of_these_tests():
    tested = {tool for tool, *_ in (*LINKS, *ELEMENTS)} | {tool for tool, *_ in FORMS}
    assert tested == set(snippet.TOOLS)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
def test_an_iframe_of_each_tool_is_loaded_with_the_visitor(visit, later):
    frames = "".join(f'<iframe src="{address}"></iframe>' for address in EMBEDS)
    visit.open("" if later else frames)
    if later:
        add(visit, frames)
    loaded = [f"{address}{added}" for address, added in EMBEDS.items()]
    visit.wait(lambda: {address.partition("#")[0] for address in loaded} <= set(visit.asked()))
    assert visit.page.eval_on_selector_all("iframe", "all => all.map((one) => one.src)") == loaded
    assert {urlsplit(address).hostname for address in visit.asked()} == {urlsplit(one).hostname for one in EMBEDS}


ADD = """(html) => {
  const policy = (window.policy = window.policy || trustedTypes.createPolicy("tests", { createHTML: (text) => text }));
  const made = document.createElement("template");
  made.innerHTML = policy.createHTML(html);
  const before = made.innerHTML;
  document.body.append(made.content);
  return before;
}"""


def add(visit, html):
    """Put elements into the page; their HTML before the snippet sees them."""
    return visit.page.evaluate(ADD, html)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
def test_an_element_of_each_tool_carries_the_visitor(visit, later):
    html = "".join(html for _, _, html, _, _ in ELEMENTS)
    visit.open("" if later else html)
    if later:
        add(visit, html)
    found = {selector: visit.attribute(selector, name) for _, selector, _, name, _ in ELEMENTS}
    assert found == {selector: value for _, selector, _, _, value in ELEMENTS}


@pytest.mark.parametrize("off", [False, True], ids=["own values", "opted out"])
def test_elements_with_a_value_and_those_that_opt_out_stay_as_they_are(visit, off):
    elements = "".join(html for _, _, html, _, _ in ELEMENTS)
    visit.open()
    before = add(
        visit, f'<main><div data-datafast="off">{elements}</div></main>' if off else f"<main>{''.join(OWN)}</main>"
    )
    visit.page.evaluate(CLICK_ALL)
    visit.page.evaluate("() => document.querySelectorAll('button').forEach((one) => one.click())")
    assert visit.page.evaluate("document.querySelector('main').outerHTML") == before


def test_a_component_that_is_defined_later_reads_the_visitor_when_it_begins(visit):
    script = """customElements.define("stripe-buy-button", class extends HTMLElement {
      connectedCallback() { window.begun = this.getAttribute("client-reference-id"); }
    });"""
    visit.open("<stripe-buy-button></stripe-buy-button>", script=script)
    assert visit.page.evaluate("window.begun") == MARKED


def test_an_address_that_is_set_later_has_the_visitor_and_a_page_that_insists_has_its_way(visit):
    visit.open('<iframe id="lazy"></iframe><iframe id="stubborn"></iframe>')
    visit.page.evaluate(
        """() => {
          document.querySelector("#lazy").src = "https://tally.so/embed/mO";
          const stubborn = document.querySelector("#stubborn");
          const insist = () => {
            if (stubborn.src != "https://tally.so/embed/no") stubborn.src = "https://tally.so/embed/no";
          };
          insist();
          new MutationObserver(insist).observe(stubborn, { attributes: true });
        }"""
    )
    visit.wait(lambda: visit.attribute("#lazy", "src") == f"https://tally.so/embed/mO?datafast_visitor_id={VISITOR}")
    assert visit.page.evaluate("1 + 1") == 2, "the page still answers"
    assert visit.attribute("#stubborn", "src") == "https://tally.so/embed/no"


# ------------------------------------------------------------------------------------------------------------- popups

TOOLS_OF_THE_PAGE = """
  window.said = [];
  const frame = (address) => { document.body.appendChild(document.createElement("iframe")).src = address; };
  window.Tally = { openPopup: (form, options) => said.push(options) };
  window.Paddle = { Checkout: { open: (options) => said.push(options) } };
  window.Calendly = { initPopupWidget: ({ url }) => frame(url) };
  window.LemonSqueezy = { Url: { Open: (url) => frame(url + "?embed=1") } };
  document.addEventListener("click", (event) => {
    const what = event.target.getAttribute("data-opens");
    if (what == "tally") Tally.openPopup("mO", { layout: "modal", hiddenFields: { plan: "pro" } });
    if (what == "tally with a value") Tally.openPopup("mO", { hiddenFields: { datafast_visitor_id: "other" } });
    if (what == "paddle") Paddle.Checkout.open({ items: [], customData: { user_id: "42" } });
    if (what == "paddle's transaction") Paddle.Checkout.open({ transactionId: "txn_1" });
    if (what == "calendly") Calendly.initPopupWidget({ url: "https://calendly.com/a/b" });
    if (what == "lemonsqueezy") LemonSqueezy.Url.Open("https://acme.lemonsqueezy.com/buy/1c2d");
    if (what == "window") window.open("https://buy.stripe.com/test_1");
  });
"""


def press(visit, what, around="{}"):
    add(visit, around.format(f'<button data-opens="{what}">Open</button>'))
    visit.page.locator(f'[data-opens="{what}"]').last.click()


def test_options_of_popups_have_the_visitor_beside_what_the_page_says(visit):
    visit.open(script=TOOLS_OF_THE_PAGE)
    for what in ("tally", "tally with a value", "paddle", "paddle's transaction"):
        press(visit, what)
    assert visit.page.evaluate("window.said") == [
        {"layout": "modal", "hiddenFields": {"plan": "pro", "datafast_visitor_id": VISITOR}},
        {"hiddenFields": {"datafast_visitor_id": "other"}},
        {"items": [], "customData": {"user_id": "42", "datafast_visitor_id": VISITOR}},
        {"transactionId": "txn_1"},
    ]


def test_a_popup_that_opens_without_a_click_has_the_visitor(visit):
    visit.files[f"{visit.shop}/tools.js"] = ("text/javascript", TOOLS_OF_THE_PAGE, {})
    visit.open("<main></main>")
    visit.page.evaluate(
        """(url) => new Promise((done) => {
          const script = document.createElement("script");
          script.onload = done;
          script.src = trustedTypes.createPolicy("page", { createScriptURL: (text) => text }).createScriptURL(url);
          document.querySelector("main").append(script);
        })""",
        f"{visit.shop}/tools.js",
    )
    visit.page.evaluate("Paddle.Checkout.open({ items: [] })")
    assert visit.page.evaluate("window.said") == [{"items": [], "customData": {"datafast_visitor_id": VISITOR}}]


def test_popups_in_a_frame_and_in_a_window_are_loaded_with_the_visitor(visit):
    visit.open(script=TOOLS_OF_THE_PAGE)
    for what in ("calendly", "lemonsqueezy", "window"):
        press(visit, what)
    expected = {
        f"https://calendly.com/a/b?utm_content={MARKED}",
        f"https://acme.lemonsqueezy.com/buy/1c2d?embed=1&checkout%5Bcustom%5D%5Bdatafast_visitor_id%5D={VISITOR}",
        f"https://buy.stripe.com/test_1?client_reference_id={MARKED}",
    }
    visit.wait(lambda: expected <= set(visit.asked()))
    assert {urlsplit(address).hostname for address in visit.asked()} == {urlsplit(one).hostname for one in expected}


def test_popups_of_a_button_that_opts_out_stay_as_they_are(visit):
    visit.open(script=TOOLS_OF_THE_PAGE)
    for what in ("tally", "paddle", "calendly", "window"):
        press(visit, what, '<div data-datafast="off">{}</div>')
    visit.wait(lambda: len(visit.requests) == 2)
    visit.page.evaluate("window.datafastBridge.scan()")
    assert VISITOR not in str(visit.page.evaluate("window.said")) + str(visit.asked())
    assert visit.page.evaluate("[...document.querySelectorAll('iframe')].map((one) => one.src)") == [
        "https://calendly.com/a/b"
    ]


# -------------------------------------------------------------------------------------------------------------- forms

FORMS = (
    ("kit", "https://app.kit.com/forms/1/subscriptions", "fields[datafast_visitor_id]", VISITOR),
    ("loops", "https://app.loops.so/api/newsletter-form/1", "datafastVisitorId", VISITOR),
    ("mailchimp", "https://acme.us1.list-manage.com/subscribe/post?u=1&id=2", "DFVISITOR", VISITOR),
    ("stripe", "https://buy.stripe.com/test_1", "client_reference_id", MARKED),
    ("tally", "https://tally.so/r/mOabc", "datafast_visitor_id", VISITOR),
)


def form(action, method, inside=""):
    fields = f'{inside}<input name="email" value="a@b.c"><button>Send</button>'
    return f'<form action="{action}" method="{method}">{fields}</form>'


def sent_by(visit):
    """The fields of the one request, once its answer is there."""
    visit.page.wait_for_url(lambda url: visit.shop not in url)
    [(method, address, body)] = visit.requests
    return dict(parse_qsl(body if method == "POST" else urlsplit(address).query))


@pytest.mark.parametrize(
    "tool",
    [pytest.param(tool, marks=[pytest.mark.long] * (tool[0] not in ("kit", "stripe"))) for tool in FORMS],
    ids=[tool[0] for tool in FORMS],
)
def test_a_form_to_each_tool_is_sent_with_the_visitor(visit, tool):
    _, action, field, value = tool
    visit.open(form(action, "get" if tool[0] in ("stripe", "tally") else "post"))
    visit.page.click("button")
    assert sent_by(visit) == {"email": "a@b.c", field: value}


@pytest.mark.parametrize(
    "send",
    [
        "form.submit()",
        pytest.param("form.requestSubmit()", marks=pytest.mark.long),
        "form.action.value = 'shadowed', HTMLFormElement.prototype.submit.call(form)",
    ],
)
def test_a_form_that_a_script_sends_has_the_visitor(visit, send):
    inside = '<input name="action" value="x">' if "shadowed" in send else ""
    visit.open(form("https://app.kit.com/forms/1/subscriptions", "post", inside))
    visit.page.evaluate(f"() => {{ const form = document.querySelector('form'); {send}; }}")
    assert sent_by(visit)["fields[datafast_visitor_id]"] == VISITOR


def test_what_a_script_reads_of_a_form_has_the_visitor_and_its_page_stays(visit):
    visit.open(form("https://app.kit.com/forms/1/subscriptions", "post"))
    read = "() => [...new FormData(document.querySelector('form'))]"
    assert visit.page.evaluate(read) == [["email", "a@b.c"], ["fields[datafast_visitor_id]", VISITOR]]
    assert VISITOR not in visit.page.content()


@pytest.mark.parametrize(
    ("before", "expected"),
    [('value="other"', "other"), ('value=""', VISITOR)],
    ids=["a value", "an empty field"],
)
def test_a_field_of_a_form_is_filled_only_if_it_is_empty(visit, before, expected):
    field = f'<input type="hidden" name="datafastVisitorId" {before}>'
    visit.open(form("https://app.loops.so/api/newsletter-form/1", "post", field))
    visit.page.click("button")
    assert sent_by(visit) == {"email": "a@b.c", "datafastVisitorId": expected}


def test_a_form_that_opts_out_or_goes_elsewhere_is_sent_as_it_is(visit):
    visit.open(
        f'<div data-datafast="off">{form("https://app.kit.com/forms/1/subscriptions", "post")}</div>'
        f"{form('https://news.example/subscribe', 'post')}"
    )
    read = "() => [...document.forms].map((form) => [...new FormData(form)].map(([name]) => name))"
    assert visit.page.evaluate(read) == [["email"], ["email"]]
    visit.page.click("button >> nth=0")
    assert sent_by(visit) == {"email": "a@b.c"}


def test_the_address_of_the_button_counts_where_it_has_one(visit):
    inside = '<button formaction="https://app.kit.com/forms/1/subscriptions">Subscribe</button>'
    visit.open(form("https://news.example/subscribe", "post", inside))
    visit.page.click("button >> nth=0")
    assert sent_by(visit)["fields[datafast_visitor_id]"] == VISITOR


# -------------------------------------------------------------------------------------------------------- the visitor

EVERYTHING = links(known for _, known, _ in LINKS) + "".join(html for _, _, html, _, _ in ELEMENTS)


@pytest.mark.parametrize(
    "cookie",
    [
        None,
        "undefined",
        "%E0%A4%A",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("null", "a%20b", "x" * 101)),
    ],
)
def test_without_a_visitor_nothing_is_changed(visit, cookie):
    visit.open(f"<main>{EVERYTHING}</main>", cookie=cookie, script=TOOLS_OF_THE_PAGE)
    shown = "document.querySelector('main').innerHTML"
    before = visit.page.evaluate(shown)
    assert visit.page.evaluate("window.datafastBridge.visitor()") is None
    assert visit.page.evaluate(CLICK_ALL)[: len(LINKS)] == [known for _, known, _ in LINKS]
    visit.page.evaluate("() => document.querySelectorAll('main button').forEach((one) => one.click())")
    press(visit, "paddle")
    assert visit.page.evaluate("window.said") == [{"items": [], "customData": {"user_id": "42"}}]
    assert visit.page.evaluate(shown) == before
    assert visit.page.evaluate("window.datafastBridge.link('https://cal.com/a/b')") == "https://cal.com/a/b"


def test_the_visitor_of_a_cookieless_site_and_links_for_a_pages_own_code(visit):
    visit.open(cookie=None, script=f"window.datafast = {{ visitorId: '{VISITOR}' }}")
    assert visit.page.evaluate("window.datafastBridge.visitor()") == VISITOR
    link = "(address) => window.datafastBridge.link(address)"
    assert visit.page.evaluate(link, "https://tally.so/r/mOabc") == with_visitor("https://tally.so/r/mOabc")
    assert visit.page.evaluate(link, "/pricing") == "/pricing"


def test_the_cookie_wins_and_is_found_among_others(visit):
    visit.set_cookie("other", "x_datafast_visitor_id")
    visit.open(script="window.datafast = { visitorId: 'cookieless' }")
    assert visit.page.evaluate("window.datafastBridge.visitor()") == VISITOR


def test_embeds_that_are_there_before_the_cookie_get_the_visitor_once_it_comes(visit):
    visit.open('<iframe src="https://tally.so/embed/mO"></iframe><stripe-buy-button></stripe-buy-button>', cookie=None)
    visit.set_cookie(VISITOR)
    visit.wait(lambda: visit.attribute("stripe-buy-button", "client-reference-id") == MARKED)
    assert visit.attribute("iframe", "src") == f"https://tally.so/embed/mO?datafast_visitor_id={VISITOR}"


def test_an_embed_in_which_somebody_writes_is_not_loaded_again(visit):
    visit.open('<iframe src="https://tally.so/embed/mO"></iframe><stripe-buy-button></stripe-buy-button>', cookie=None)
    visit.page.focus("iframe")
    visit.set_cookie(VISITOR)
    visit.page.evaluate("window.datafastBridge.scan()")
    assert visit.attribute("stripe-buy-button", "client-reference-id") == MARKED
    assert visit.attribute("iframe", "src") == "https://tally.so/embed/mO"


# ------------------------------------------------------------------------------------------- as a guest on any page


def test_only_the_tools_that_were_chosen_are_served(visit):
    visit.open(links(["https://buy.stripe.com/test_1", "https://cal.com/acme/demo"]), tools=["calcom"])
    assert visit.page.evaluate(CLICK_ALL) == [
        "https://buy.stripe.com/test_1",
        with_visitor("https://cal.com/acme/demo"),
    ]


def test_loaded_twice_it_serves_the_tools_of_both_and_adds_nothing_twice(visit):
    visit.files[f"{visit.shop}/more.js"] = ("text/javascript", snippet.script(["calcom"]), {})
    head = snippet.inline(["stripe"]) + '<script src="/more.js"></script>' * 2
    visit.open(links(["https://buy.stripe.com/test_1", "https://cal.com/acme/demo"]), tools=["stripe"], head=head)
    expected = [with_visitor("https://buy.stripe.com/test_1"), with_visitor("https://cal.com/acme/demo")]
    assert visit.page.evaluate(CLICK_ALL) == expected
    assert visit.page.evaluate("Object.keys(window.datafastBridge.tools)") == ["stripe", "calcom"]


def test_a_script_that_differs_from_its_hash_is_blocked(visit):
    visit.open(tools=["stripe"], head=snippet.inline(["stripe"]).replace("use strict", "use  strict"))
    assert visit.page.evaluate("typeof window.datafastBridge") == "undefined"
    assert "Content Security Policy" in visit.problems.pop()


def test_a_page_that_hides_its_cookies_and_freezes_its_tools_sees_no_error(visit):
    visit.policy += "; sandbox allow-scripts"
    hostile = "window.Tally = Object.freeze({ openPopup: () => 1 });"
    hostile += "window.Paddle = { get Checkout() { throw Error('no'); } };"
    visit.open(
        f"{EVERYTHING}<form id='datafastBridge'></form>",
        script=f"{hostile} window.datafast = {{ visitorId: '{VISITOR}' }};",
    )
    after = visit.page.evaluate(CLICK_ALL)
    assert after[: len(LINKS)] == [known + added for _, known, added in LINKS]


def test_the_bridges_own_copy_works_on_a_page_of_another_site(visit):
    application = Flask("tests")
    application.add_url_rule("/bridge.<digest>.js", view_func=web.script)
    code = snippet.script()
    address = f"https://hooks.example/{snippet.file_name(code)}"
    answer = application.test_client().get(urlsplit(address).path)
    visit.files[address] = (answer.content_type, answer.text, dict(answer.headers))
    visit.open(links(["https://cal.com/acme/demo"]), head=snippet.tag(address, code))
    visit.wait(lambda: visit.page.evaluate("Boolean(window.datafastBridge)"))
    assert visit.page.evaluate(CLICK_ALL) == [with_visitor("https://cal.com/acme/demo")]
    assert visit.asked() == [address]
