// Reads what an SDK's type declarations call required, and prints it as JSON for stripe.json.
//
//   npm install typescript@5 stripe@23.1.0
//   node from_types.mjs node_modules/stripe > stripe.json
//
// A field without `?` is required. Types are JSON's. "a.b" is a field of the object in field a,
// "a[].b" of each object in list a; both bind only where a is there and not null.

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const ts = createRequire(path.resolve("package.json"))("typescript");

// Kind in our file: file of the declarations, interface.
const KINDS = {
  payment_intent: ["PaymentIntents", "PaymentIntent"],
  charge: ["Charges", "Charge"],
  refund: ["Refunds", "Refund"],
  customer: ["Customers", "Customer"],
  payment_method: ["PaymentMethods", "PaymentMethod"],
  setup_intent: ["SetupIntents", "SetupIntent"],
  "checkout.session": ["Checkout/Sessions", "Session"],
  "billing_portal.session": ["BillingPortal/Sessions", "Session"],
  dispute: ["Disputes", "Dispute"],
  event: ["Events", "EventBase"],
  line_item: ["LineItems", "LineItem"],
};
// "list" and "error" are no resources of the SDK; Stripe's OpenAPI document has them in every answer.
const COMMON = {
  list: { object: "string", data: "array", has_more: "boolean", url: "string" },
  error: { error: "object", "error.type": "string" },
};
// Fields of fields of fields; what lies deeper is not asked for.
const DEPTH = 3;
// Optional objects that every payment by card has.
const LOOKED_INTO = new Set(["card"]);

const folder = process.argv[2];
const files = new Map();
for (const [file] of Object.values(KINDS)) {
  files.set(file, path.join(folder, "esm/resources", `${file}.d.ts`));
}
const program = ts.createProgram([...files.values()], { strict: true, skipLibCheck: true });
const checker = program.getTypeChecker();

function find(file, name) {
  let found;
  const visit = (node) => {
    if (ts.isInterfaceDeclaration(node) && node.name.text === name) found ??= node;
    ts.forEachChild(node, visit);
  };
  visit(program.getSourceFile(files.get(file)));
  if (!found) throw new Error(`${file} has no ${name}`);
  return checker.getTypeAtLocation(found);
}

function parts(type) {
  return type.isUnion() ? type.types : [type];
}

function json(type) {
  const flags = type.flags;
  if (flags & ts.TypeFlags.Null) return "null";
  if (flags & (ts.TypeFlags.StringLike | ts.TypeFlags.EnumLike)) return "string";
  // An enum that may grow is declared as a string with something beside it.
  if (type.isIntersection() && type.types.some((it) => json(it) === "string")) return "string";
  if (flags & ts.TypeFlags.NumberLike) return "number";
  if (flags & ts.TypeFlags.BooleanLike) return "boolean";
  if (checker.isArrayType(type)) return "array";
  // Numbers too fine for a float are written as text; the SDK gives them a class.
  if (type.getProperties().some((it) => it.escapedName.startsWith("__@"))) return "string";
  if (flags & ts.TypeFlags.Object || type.isIntersection()) return "object";
  throw new Error(`no JSON type: ${checker.typeToString(type)}`);
}

// The object of its own that a field always holds; not one that may be an id instead.
function inner(types) {
  const held = types.filter((type) => json(type) !== "null");
  if (held.length !== 1) return;
  if (json(held[0]) === "array") {
    const of = parts(checker.getTypeArguments(held[0])[0]);
    return of.length === 1 && json(of[0]) === "object" ? ["[]", of[0]] : undefined;
  }
  return json(held[0]) === "object" ? ["", held[0]] : undefined;
}

function walk(type, prefix, depth, out) {
  for (const property of checker.getPropertiesOfType(type)) {
    const declared = checker.getTypeOfSymbol(property);
    const optional = property.flags & ts.SymbolFlags.Optional;
    if (declared.getCallSignatures().length || property.name === "lastResponse") continue;
    const absent = ts.TypeFlags.Undefined | ts.TypeFlags.Void;
    const types = parts(declared).filter((it) => !(it.flags & absent));
    if (types.length === 0) continue;
    if (types.some((it) => it.flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown))) continue;
    const name = prefix + property.name;
    if (!optional) out[name] = [...new Set(types.map(json))].sort().join("|");
    const looked = !optional || LOOKED_INTO.has(property.name);
    const deeper = depth < DEPTH && looked && inner(types);
    if (deeper) {
      walk(deeper[1], `${name}${deeper[0]}.`, depth + 1, out);
    }
  }
}

const kinds = { ...COMMON };
for (const [kind, [file, name]] of Object.entries(KINDS)) {
  walk(find(file, name), "", 1, (kinds[kind] = {}));
}
const version = fs.readFileSync(path.join(folder, "VERSION"), "utf8").trim();
const manifest = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8"));
const openapi = fs.readFileSync(path.join(folder, "OPENAPI_VERSION"), "utf8").trim();
const api = /'([^']+)'/.exec(fs.readFileSync(path.join(folder, "esm/apiVersion.js"), "utf8"))[1];
const source = `type declarations of npm ${manifest.name} ${version}, made of Stripe's OpenAPI document ${openapi}, API version ${api}`;
console.log(JSON.stringify({ source, kinds }, null, 1));
