// The providers' own Node libraries. Each line on stdin is a question, each line on stdout its answer:
//   {"library", "ask": "verify" | "sign", "method", "url", "headers", "body": base64, "secret"}  ->  true | false | "signature"
// A library verifies by returning (anything but false) and refuses by throwing or by false.
// The clock stands still at the second given as the only argument, as it does for the Python libraries.
import { createInterface } from "node:readline";

const now = Number(process.argv[2]) * 1000;
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...said) {
    said.length ? super(...said) : super(now);
  }
  static now() {
    return now;
  }
};

const shopify = async (sent) => {
  await import("@shopify/shopify-api/adapters/node");
  const { ApiVersion, LogSeverity, shopifyApi } = await import("@shopify/shopify-api");
  const api = shopifyApi({
    apiKey: "none",
    apiSecretKey: sent.secret,
    apiVersion: Object.values(ApiVersion).at(-1),
    hostName: "none.example",
    isEmbeddedApp: false,
    logger: { level: LogSeverity.Error, log: () => {} },
  });
  const rawRequest = { method: sent.method, url: sent.url, headers: sent.headers };
  return (await api.webhooks.validate({ rawBody: sent.body, rawRequest, rawResponse: {} })).valid;
};

const LIBRARIES = {
  clerk: {
    verify: async (sent) => {
      const { verifyWebhook } = await import("@clerk/backend/webhooks");
      return verifyWebhook(new Request(sent.url, sent), { signingSecret: sent.secret });
    },
  },
  shopify: { verify: shopify },
  creem: {
    verify: async (sent) => {
      const { verifyWebhookSignature } = await import("creem/webhooks.js");
      return verifyWebhookSignature(sent.body, sent.headers, sent.secret);
    },
  },
  octokit: {
    verify: async (sent) => {
      const { verify } = await import("@octokit/webhooks-methods");
      return verify(sent.secret, sent.body, sent.headers["x-hub-signature-256"]);
    },
    sign: async (sent) => {
      const { sign } = await import("@octokit/webhooks-methods");
      return sign(sent.secret, sent.body);
    },
  },
  linear: {
    verify: async (sent) => {
      const { LinearWebhookClient } = await import("@linear/sdk/webhooks");
      const { "linear-signature": signature, "linear-timestamp": stamp } = sent.headers;
      return Boolean(new LinearWebhookClient(sent.secret).parseData(Buffer.from(sent.body), signature, stamp));
    },
  },
  notion: {
    verify: async (sent) => {
      const { verifyWebhookSignature } = await import("@notionhq/client");
      const signature = sent.headers["x-notion-signature"];
      return verifyWebhookSignature({ body: sent.body, signature, verificationToken: sent.secret });
    },
    sign: async (sent) => {
      const { signWebhookPayload } = await import("@notionhq/client");
      return signWebhookPayload({ body: sent.body, verificationToken: sent.secret });
    },
  },
};

const answer = async ({ library, ask, ...sent }) => {
  sent.body = Buffer.from(sent.body, "base64").toString();
  if (ask === "sign") return LIBRARIES[library].sign(sent);
  try {
    return (await LIBRARIES[library].verify(sent)) !== false;
  } catch (error) {
    if (error.code === "ERR_MODULE_NOT_FOUND") throw error;
    return false;
  }
};

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
}
