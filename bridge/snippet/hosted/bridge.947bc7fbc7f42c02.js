(function (table) {
"use strict";
const first = window.datafastBridge;
if (first && first.tools) {
Object.assign(first.tools, table);
first.scan();
return;
}
const doc = document;
const tools = Object.assign({}, table);
const wrapped = new WeakSet();
const changes = new WeakMap();
const leftAlone = new WeakSet();
let optedOut = false;
let timer = 0;
let waitMs = 250;
function visitor() {
const fromCookie = () => decodeURIComponent(/(?:^|;\s*)datafast_visitor_id=([^;]+)/.exec(doc.cookie)[1]);
return idOf(fromCookie) || idOf(() => window.datafast.visitorId);
}
function idOf(read) {
try {
const id = read();
return /^(?!(undefined|null|none|nan|true|false|0)$)[\w-]{1,100}$/i.test(id) ? id : undefined;
} catch (_) {}
}
const valueFor = (tool) => (tool.prefix || "") + visitor();
function isOff(element) {
for (; element; element = element.parentNode || element.host) {
if (leftAlone.has(element) || (element.getAttribute && element.getAttribute("data-datafast") == "off")) return true;
}
}
const namedTool = (element) => tools[element.getAttribute("data-datafast")];
function toolOf(url, ofForm) {
const host = "." + url.hostname;
return Object.values(tools).find((tool) =>
(ofForm || !tool.forms) && url.pathname.includes(tool.path || "") &&
(tool.hosts || []).some((known) => host.endsWith("." + known)));
}
function inAddress(text, tool) {
text = text.trim();
const url = new URL(text, doc.baseURI);
tool = tool || toolOf(url);
if (!tool || !visitor() || !/^https?:$/.test(url.protocol) || url.origin == location.origin) return;
const inFragment = new URLSearchParams(url.hash.slice(1));
if (tool.keys.some((key) => url.searchParams.get(key) || inFragment.get(key))) return;
for (const key of tool.keys) {
if (!url.searchParams.has(key)) continue;
url.searchParams.delete(key);
text = url.href;
}
const pairs = tool.keys.map((key) => encodeURIComponent(key) + "=" + valueFor(tool)).join("&");
const joined = (part, mark) => part + (!part.includes(mark) ? mark : /[?#&]$/.test(part) ? "" : "&") + pairs;
if (tool.fragment) return joined(text, "#");
const [, address, fragment] = /^([^#]*)([^]*)$/.exec(text);
return joined(address, "?") + fragment;
}
function inObject(object, tool) {
object = object || {};
if (typeof object != "object" || tool.keys.some((key) => object[key])) return;
return tool.keys.reduce((made, key) => Object.assign(made, { [key]: valueFor(tool) }), Object.assign({}, object));
}
function inPairs(text, tool, separator) {
const pairs = text.split(separator).filter((pair) => pair && !tool.keys.includes(pair.replace(/=$/, "")));
if (tool.keys.some((key) => pairs.some((pair) => pair.trim().startsWith(key + "=")))) return;
return pairs.concat(tool.keys.map((key) => key + "=" + valueFor(tool))).join(separator);
}
function inAttribute(old, tool, form) {
if (form == "value") return old ? undefined : valueFor(tool);
if (form == "url") return old ? inAddress(old, tool) : undefined;
if (form != "json") return inPairs(old, tool, form);
const object = inObject(JSON.parse(old || "{}"), tool);
return object && JSON.stringify(object);
}
const quietly = (work) => (...given) => {
try {
return work(...given);
} catch (_) {}
};
const mark = quietly((element, attribute, form, tool) => {
const value = inAttribute(element.getAttribute(attribute) || "", tool, form);
if (value === undefined) return;
const times = (changes.get(element) || 0) + 1;
if (attribute != "href" && times > 4) return;
changes.set(element, times);
if (attribute != "src") return element.setAttribute(attribute, value);
const parent = element.parentNode;
const next = element.nextSibling;
element.remove();
try {
element.setAttribute(attribute, value);
} finally {
parent.insertBefore(element, next);
}
});
const ownMarks = () => Object.values(tools).flatMap((tool) => (tool.marks || []).map((row) => [tool, ...row]));
function each(element, clicked) {
if (isOff(element)) return;
ownMarks().forEach(([tool, selector, attribute, form]) => {
if (element.matches(selector)) mark(element, attribute, form, tool);
});
if (element.matches("iframe[src]") && element != doc.activeElement) mark(element, "src", "url", namedTool(element));
if (clicked && element.matches("a,area")) mark(element, "href", "url", namedTool(element));
}
function scan(root) {
if (!visitor()) return later();
wrapAll();
const selector = ownMarks().map((row) => row[1]).concat("iframe[src]").join();
if (root.matches && root.matches(selector)) each(root);
if (root.querySelectorAll) root.querySelectorAll(selector).forEach((element) => each(element));
}
function later() {
if (timer || waitMs > 2e4) return;
timer = setTimeout(() => {
timer = 0;
waitMs *= 2;
quietly(scan)(doc);
}, waitMs);
}
function wrap(path, change) {
const names = path.split(".");
const name = names.pop();
const owner = names.reduce((found, one) => found && found[one], window);
const original = owner && owner[name];
if (typeof original != "function" || wrapped.has(original)) return;
const apply = (called, self, given) => {
if (!optedOut && visitor()) quietly(change)(given);
return Reflect.apply(called, self, given);
};
owner[name] = new Proxy(original, { apply });
wrapped.add(owner[name]);
}
function wrapAll() {
quietly(wrap)("open", (given) => {
given[0] = inAddress(String(given[0])) || given[0];
});
Object.values(tools).forEach((tool) => (tool.calls || []).forEach(([path, at, field]) =>
quietly(wrap)(path, (given) => {
const options = given[at] || {};
const carrier = options.transactionId ? undefined : inObject(options[field], tool);
if (carrier) given[at] = Object.assign({}, options, { [field]: carrier });
})));
}
function clicked(event) {
const path = event.composedPath();
optedOut = isOff(path[0]);
setTimeout(() => (optedOut = false));
if (!visitor()) {
waitMs = 250;
return later();
}
wrapAll();
path.forEach((element) => element.matches && each(element, true));
}
function submitted(event) {
const form = event.target;
if (optedOut || isOff(form) || !visitor()) return;
const button = event.submitter;
const action = (button && button.getAttribute("formaction")) || form.getAttribute("action") || "";
const url = new URL(action, doc.baseURI);
const tool = namedTool(form) || toolOf(url, true);
if (!tool || tool.keys.some((key) => url.searchParams.get(key))) return;
const data = event.formData;
const fields = (key) => Array.from(form.elements).filter((field) => field.name == key);
const has = (key) => (data ? data.get(key) : fields(key).some((field) => field.value));
if (tool.keys.some(has)) return;
tool.keys.forEach((key) => {
if (data) return data.set(key, valueFor(tool));
const field = fields(key)[0] || form.appendChild(doc.createElement("input"));
if (!field.name) Object.assign(field, { type: "hidden", name: key });
field.value = valueFor(tool);
});
}
function changed(records) {
for (const record of records) {
if (record.type == "attributes") scan(record.target);
record.addedNodes.forEach((node) => (optedOut ? leftAlone.add(node) : scan(node)));
}
}
const on = (names, work) => names.forEach((name) => addEventListener(name, quietly(work), true));
on(["mousedown", "click", "auxclick", "contextmenu"], clicked);
on(["submit", "formdata"], submitted);
on(["load"], () => scan(doc));
doc.addEventListener("load", quietly((event) => event.target.matches("script") && visitor() && wrapAll()), true);
new MutationObserver(quietly(changed)).observe(doc, {
childList: true,
subtree: true,
attributeFilter: ["src", "data-url", "data-tally-src", "data-tf-hidden", "data-cal-config"],
});
window.datafastBridge = {
visitor,
link: (address) => quietly(inAddress)(String(address)) || address,
scan: () => quietly(scan)(doc),
tools,
};
window.datafastBridge.scan();
})({
"stripe":{"hosts":["buy.stripe.com","book.stripe.com","donate.stripe.com"],"keys":["client_reference_id"],"prefix":"dfv_","marks":[["stripe-buy-button,stripe-pricing-table","client-reference-id","value"]]},
"lemonsqueezy":{"hosts":["lemonsqueezy.com"],"path":"/buy/","keys":["checkout[custom][datafast_visitor_id]"]},
"polar":{"hosts":["buy.polar.sh"],"keys":["reference_id"],"prefix":"dfv_"},
"paddle":{"keys":["datafast_visitor_id"],"marks":[[".paddle_button:not([data-transaction-id])","data-custom-data","json"]],"calls":[["Paddle.Checkout.open",0,"customData"]]},
"gumroad":{"hosts":["gumroad.com"],"path":"/l/","keys":["datafast_visitor_id"],"marks":[[".gumroad-button","href","url"],[".gumroad-product-embed","data-gumroad-params","&"]]},
"creem":{"hosts":["creem.io"],"keys":["metadata[datafast_visitor_id]"]},
"dodo":{"hosts":["checkout.dodopayments.com"],"path":"/buy/","keys":["metadata_datafast_visitor_id"]},
"calcom":{"hosts":["cal.com"],"keys":["metadata[datafast_visitor_id]","datafast_visitor_id"],"marks":[["[data-cal-link]","data-cal-config","json"]]},
"calendly":{"hosts":["calendly.com"],"keys":["utm_content"],"prefix":"dfv_","marks":[[".calendly-inline-widget,.calendly-badge-widget","data-url","url"]]},
"savvycal":{"hosts":["savvycal.com"],"keys":["metadata[datafast_visitor_id]"]},
"tally":{"hosts":["tally.so"],"keys":["datafast_visitor_id"],"marks":[["[data-tally-src]","data-tally-src","url"],["[data-tally-open]","data-datafast_visitor_id","value"]],"calls":[["Tally.openPopup",1,"hiddenFields"]]},
"typeform":{"hosts":["typeform.com"],"path":"/to/","keys":["datafast_visitor_id"],"fragment":true,"marks":[["[data-tf-live],[data-tf-widget],[data-tf-popup],[data-tf-slider],[data-tf-popover],[data-tf-sidetab]","data-tf-hidden",","]]},
"fillout":{"hosts":["fillout.com"],"keys":["datafast_visitor_id"],"marks":[["[data-fillout-id]","data-datafast_visitor_id","value"]]},
"kit":{"hosts":["app.kit.com","app.convertkit.com"],"path":"/forms/","keys":["fields[datafast_visitor_id]"],"forms":true},
"loops":{"hosts":["app.loops.so"],"path":"/newsletter-form/","keys":["datafastVisitorId"],"forms":true},
"mailchimp":{"hosts":["list-manage.com"],"path":"/subscribe","keys":["DFVISITOR"],"forms":true}
});