// Hands the DataFast visitor over to the tools of the table: on links, embeds, popups and forms, also on later ones.
// It sends nothing, throws nothing, and keeps every value that is there already. Written for all browsers since 2020.
//
// `python -m bridge snippet` puts the table (tools.yaml) into TOOLS, and takes away the comments and the indentation:
// a comment stands on a line of its own, and no string goes over two lines.
(function (table) {
  "use strict";

  // Loaded twice, perhaps for other tools: the first one does the work for both.
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
  // Popups that were opened by a click on an element that opted out.
  const leftAlone = new WeakSet();
  let optedOut = false;
  let timer = 0;
  let waitMs = 250;

  // ------------------------------------------------------------------------------------------------- the visitor

  function visitor() {
    const fromCookie = () => decodeURIComponent(/(?:^|;\s*)datafast_visitor_id=([^;]+)/.exec(doc.cookie)[1]);
    // The second is for cookieless sites.
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

  // An address at a domain of one's own does not show its tool: data-datafast="stripe" does.
  const namedTool = (element) => tools[element.getAttribute("data-datafast")];

  // ----------------------------------------------------------------------------------------------- one new value

  function toolOf(url, ofForm) {
    const host = "." + url.hostname;
    return Object.values(tools).find((tool) =>
      (ofForm || !tool.forms) && url.pathname.includes(tool.path || "") &&
      (tool.hosts || []).some((known) => host.endsWith("." + known)));
  }

  // An address with the visitor. Undefined, here and below: nothing is to be changed.
  function inAddress(text, tool) {
    text = text.trim();
    const url = new URL(text, doc.baseURI);
    tool = tool || toolOf(url);
    if (!tool || !visitor() || !/^https?:$/.test(url.protocol) || url.origin == location.origin) return;
    const inFragment = new URLSearchParams(url.hash.slice(1));
    if (tool.keys.some((key) => url.searchParams.get(key) || inFragment.get(key))) return;
    for (const key of tool.keys) {
      // Without a value, as `?client_reference_id=`.
      if (!url.searchParams.has(key)) continue;
      url.searchParams.delete(key);
      text = url.href;
    }
    // What is there stays as it is written: it may be signed, or be read by a strict program.
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

  // ---------------------------------------------------------------------------------------- elements of the page

  const quietly = (work) => (...given) => {
    try {
      return work(...given);
    } catch (_) {}
  };

  const mark = quietly((element, attribute, form, tool) => {
    const value = inAttribute(element.getAttribute(attribute) || "", tool, form);
    if (value === undefined) return;
    // A page that takes the value away again and again has its way.
    const times = (changes.get(element) || 0) + 1;
    if (attribute != "href" && times > 4) return;
    changes.set(element, times);
    if (attribute != "src") return element.setAttribute(attribute, value);
    // Chromium sometimes forgets the second address of a frame while the first is on its way. A frame that is put in
    // anew has only one, and adds nothing to the history.
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
    // An embed in which somebody writes is not loaded again.
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

  // The cookie may come after the page: look again for half a minute, and after each click.
  function later() {
    if (timer || waitMs > 2e4) return;
    timer = setTimeout(() => {
      timer = 0;
      waitMs *= 2;
      quietly(scan)(doc);
    }, waitMs);
  }

  // -------------------------------------------------------------------------------------------- functions of tools

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
        // A transaction of Paddle's that a server has made keeps what the server wrote.
        const carrier = options.transactionId ? undefined : inObject(options[field], tool);
        if (carrier) given[at] = Object.assign({}, options, { [field]: carrier });
      })));
  }

  // --------------------------------------------------------------------------------------------------- what happens

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

  // `submit` for the page's own scripts, which read the form; `formdata` also for form.submit() and new FormData(form).
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
  // A script of a tool's has run; the window does not hear of that.
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
})(TOOLS);
