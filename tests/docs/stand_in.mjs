// Runs the scripts of docs/recipes. Each name that a script uses and nobody defines is a stand-in for a tool's library,
// which records how it is called; the page and the framework are small ones of our own.
import { createHmac, randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"

const AsyncFunction = (async () => {}).constructor
const NATIVE = { URL, URLSearchParams, Headers, Response, Buffer, JSON, Math, Date, Object, String, Promise, createHmac, randomUUID, encodeURIComponent, undefined }

async function run(code, visitor) {
  const told = [], clicks = [], exported = {}
  const stand = (name) =>
    new Proxy(function () {}, {
      get: (_, key) => {
        if (key === "toJSON" || key === Symbol.toPrimitive) return () => name
        return key === "then" || typeof key === "symbol" ? undefined : stand(`${name}.${key}`)
      },
      apply: (_, __, given) => (told.push([name, ...given]), stand(`${name}()`)),
    })
  const cookie = `a=b; ${visitor ? `datafast_visitor_id=${visitor}; ` : ""}c=d`
  const element = {
    toJSON: () => "an element",
    hasAttribute: () => false,
    setAttribute: (name, value) => told.push(["setAttribute", name, value]),
    append: (child) => told.push(["append", child]),
  }
  const document = {
    cookie,
    addEventListener: (kind, listener) => clicks.push(listener),
    querySelector: () => element,
    querySelectorAll: () => [element],
    createElement: () => ({}),
  }
  const jar = { get: (name) => (visitor && name === "datafast_visitor_id" ? { value: visitor } : undefined) }
  const request = { url: "https://example.com/callback?code=1", headers: new Headers({ cookie }), json: async () => ({ email: "ada@example.com" }) }
  const user = { id: "user_42", ...(visitor && { datafastVisitorId: visitor }) }
  const env = new Proxy({ GENERIC_WEBHOOK_SECRET: "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX" }, { get: (own, key) => own[key] ?? `https://example.com/${key}` })
  const own = { ...NATIVE, document, cookies: async () => jar, process: { env }, exports: exported, exported, user, element: (tag, given) => told.push([tag, given]) }
  const scope = new Proxy(own, { has: () => true, get: (_, key) => (key === Symbol.unscopables ? undefined : key in own ? own[key] : stand(key)) })
  await new AsyncFunction("scope", `with (scope) {\n${plain(code)}\n}`)(scope)

  const query = visitor && { "ext-datafast_visitor_id": visitor }
  const event = code.includes("event.request")
    ? { request: { query: { ...query } }, stats: { logins_count: 1 } }
    : { event: "signup", id: "signup:user_42", ...(visitor && { datafast_visitor_id: visitor }) }
  const given = { event, request, user, visitor, api: stand("api"), context: { headers: request.headers }, userId: "user_42", lines: [] }
  for (const called of [...Object.values(exported), ...callbacks(told)]) {
    const [, names] = /\(([^)]*)\)/.exec(called.toString())
    const values = names.split(/,\s*/).filter(Boolean).map((name) => (name.startsWith("{") ? { user } : given[name]))
    await called(...values)
  }
  for (const listener of clicks) click(listener, told, visitor)
  return told
}

// What a browser does twice: what is there the second time stays. A click beside any link does nothing.
function click(listener, told, visitor) {
  listener({ target: { closest: () => null } })
  const link = {}
  const closest = (selector) => {
    const [, begins, part] = /href([*^])="([^"]+)"/.exec(selector)
    link.href ??= begins === "^" ? `${part}x?a=1` : `https://shop${part}l/x?a=1`
    return link
  }
  listener({ target: { closest } })
  told.push(["click", link.href])
  if (visitor) link.href = link.href.replace(visitor, "somebody")
  listener({ target: { closest } })
  told.push(["click", link.href])
}

function callbacks(value, seen = new Set()) {
  if (value?.toJSON || seen.has(value)) return []
  if (typeof value === "function") return [value]
  if (value === null || typeof value !== "object") return []
  seen.add(value)
  return Object.values(value).flatMap((each) => callbacks(each, seen))
}

// Modules and JSX, as far as the recipes use them: imports are stand-ins, <Tag a={b} /> is a call.
function plain(code) {
  return code
    .replace(/^import .*$/gm, "")
    .replace(/^export default async function (\w+)/gm, "exported.$1 = $1; async function $1")
    .replace(/^export async function (\w+)/gm, "exported.$1 = $1; async function $1")
    .replace(/^export const (\{.*\}|\w+) =/gm, "const $1 =")
    .replace(/return <(\w+)([\s\S]*?)\s*\/>$/gm, (_, tag, rest) => `return element("${tag}", {${attributes(rest)}})`)
}

function attributes(text) {
  let inside = "[^{}]*" // of braces, four deep
  for (let depth = 0; depth < 4; depth++) inside = `(?:[^{}]|\\{${inside}\\})*`
  const each = new RegExp(`(\\w+)(?:="([^"]*)"|=\\{(${inside})\\})?`, "g")
  return [...text.matchAll(each)].map(([, name, string, value]) => `${name}: ${value ?? JSON.stringify(string ?? true)}`).join(", ")
}

const { codes, visitors } = JSON.parse(readFileSync(0, "utf-8"))
const results = []
for (const code of codes) {
  for (const visitor of visitors) {
    const told = await run(code, visitor).catch((error) => [["threw", String(error)]])
    results.push(JSON.stringify(told, (_, value) => (value === undefined ? "undefined!" : typeof value === "function" && !value.toJSON ? "callback" : value)))
  }
}
process.stdout.write(JSON.stringify(results))
