// PayPal's SDK for Node drives the simulator: it refuses an answer that breaks PayPal's schemas, and
// drops what they do not have, which is then found by comparing with the raw answer.
//
//   node paypal_strict.mjs '<the line of tollgate simulator --json>'

import { createRequire } from "node:module";
import path from "node:path";
import process from "node:process";

const require = createRequire(path.resolve("package.json"));
const paypal = require("@paypal/paypal-server-sdk");
const axios = require("axios");

const facts = JSON.parse(process.argv[2]);
const sandbox = "https://api-m.sandbox.paypal.com";
const whole = "return=representation";
const urls = { returnUrl: "https://app.example.com/", cancelUrl: "https://app.example.com/cart" };

const client = new paypal.Client({
  clientCredentialsAuthCredentials: {
    oAuthClientId: facts.paypal_client_id,
    oAuthClientSecret: facts.paypal_client_secret,
  },
  environment: paypal.Environment.Sandbox,
  unstable_httpClientOptions: {
    adapter: (request) => {
      request.url = request.url.replace(sandbox, facts.paypal.replace(/\/$/, ""));
      return axios.getAdapter("http")(request);
    },
  },
});
const orders = new paypal.OrdersController(client);
const payments = new paypal.PaymentsController(client);
const vault = new paypal.VaultController(client);
const search = new paypal.TransactionSearchController(client);

async function control(at, body) {
  const answer = await fetch(facts.control.replace(/\/$/, "") + at, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  if (!answer.ok) throw new Error(`${at}: ${await answer.text()}`);
}

const camel = (name) => name.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());
const dropped = [];
let answers = 0;

function compare(raw, kept, at) {
  if (Array.isArray(raw)) raw.forEach((item, index) => compare(item, kept?.[index], `${at}[]`));
  else if (raw && typeof raw === "object") {
    for (const [name, value] of Object.entries(raw)) {
      const mapped = [name, camel(name)].find((it) => kept && it in kept);
      if (mapped) compare(value, kept[mapped], `${at}.${name}`);
      else dropped.push(`${at}.${name}`);
    }
  }
}

async function ask(what, call) {
  const answer = await call;
  answers += 1;
  if (answer.body) compare(JSON.parse(answer.body), answer.result, what);
  return answer.result;
}

function order(payment, wallet) {
  const amount = { currencyCode: "USD", value: "10.99" };
  return {
    intent: "CAPTURE",
    purchaseUnits: [{ amount, customId: payment, invoiceId: payment }],
    paymentSource: { paypal: { experienceContext: urls, ...wallet } },
  };
}

const saving = { attributes: { vault: { storeInVault: "ON_SUCCESS", usageType: "MERCHANT" } } };
const asked = { body: order("strict-1", saving), paypalRequestId: "strict-1", prefer: whole };
const { id } = await ask("order", orders.createOrder(asked));
await control(`/paypal/orders/${id}/approve`, { funding: "instant" });
const done = await ask("order", orders.captureOrder({ id, paypalRequestId: "strict-2", prefer: whole }));
const captureId = done.purchaseUnits[0].payments.captures[0].id;
await ask("capture", payments.getCapturedPayment({ captureId }));
const part = { amount: { currencyCode: "USD", value: "1.00" } };
const refunding = { captureId, paypalRequestId: "strict-3", prefer: whole, body: part };
const refund = await ask("refund", payments.refundCapturedPayment(refunding));
await ask("refund", payments.getRefund({ refundId: refund.id }));
await ask("capture", payments.getCapturedPayment({ captureId }));
await ask("order", orders.getOrder({ id }));
const wallet = { usageType: "MERCHANT", experienceContext: urls };
const wish = { paypalRequestId: "strict-4", body: { paymentSource: { paypal: wallet } } };
const setup = await ask("setup token", vault.createSetupToken(wish));
await control(`/paypal/setup-tokens/${setup.id}/approve`);
await ask("setup token", vault.getSetupToken(setup.id));
const source = { token: { id: setup.id, type: "SETUP_TOKEN" } };
const confirming = { paypalRequestId: "strict-5", body: { paymentSource: source } };
const token = await ask("payment token", vault.createPaymentToken(confirming));
await ask("payment token", vault.getPaymentToken(token.id));
await ask("tokens", vault.listCustomerPaymentTokens({ customerId: token.customer.id }));
const renewal = order("strict-2", { vaultId: token.id });
await ask("charge", orders.createOrder({ body: renewal, paypalRequestId: "strict-6", prefer: whole }));
await ask("deletion", vault.deletePaymentToken(token.id));
const day = (days) => `${new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 19)}Z`;
await ask("search", search.searchTransactions({ startDate: day(-1), endDate: day(1), fields: "all" }));

if (dropped.length > 0) throw new Error(`not in PayPal's schemas: ${[...new Set(dropped)]}`);
console.log(`${answers} answers`);
