// Checks X-Koder-Context in Node, without a package: see docs/context.md.
// As a command: node context.mjs KEYS HOST TOKEN, where KEYS is the URL or the file of the gateway's JWK Set.
import { createPublicKey, verify as signatureFits } from "node:crypto";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const ALGORITHMS = { EdDSA: { kty: "OKP", crv: "Ed25519" }, ES256: { kty: "EC", crv: "P-256" } };
const LEEWAY = 5; // seconds by which the clocks may differ

const decoded = (part) => JSON.parse(Buffer.from(part, "base64url"));
const bareHost = (host) => host.toLowerCase().replace(/^(\[[^\]]*\]|[^:]*).*$/, "$1").replace(/\.$/, "");

// The claims of a token, or an Error. `jwks` is the JWK Set, `host` the request's Host, `now` seconds since the epoch.
export function verify(token, jwks, host, now = Date.now() / 1000) {
  const parts = token.split(".");
  if (parts.length !== 3 || token.length > 4096) throw new Error("this is no compact JWS");
  const header = decoded(parts[0]);
  const wanted = Object.hasOwn(ALGORITHMS, header.alg) ? ALGORITHMS[header.alg] : undefined;
  if (header.typ !== "koder-context+jwt" || wanted === undefined || header.crit !== undefined)
    throw new Error("this is no context: its typ, alg or crit is another");
  const jwk = jwks.keys.find((key) => key.kid === header.kid);
  if (jwk === undefined) throw new Error("the key is not one of the gateway's"); // fetch the set again, at most each 10 s
  if (jwk.kty !== wanted.kty || jwk.crv !== wanted.crv) throw new Error("the key is not for this algorithm");
  const key = { key: createPublicKey({ key: jwk, format: "jwk" }), dsaEncoding: "ieee-p1363" };
  const hash = header.alg === "ES256" ? "sha256" : null;
  if (!signatureFits(hash, Buffer.from(`${parts[0]}.${parts[1]}`), key, Buffer.from(parts[2], "base64url")))
    throw new Error("the signature is wrong");
  const claims = decoded(parts[1]);
  if (claims.iss !== "koder-gateway") throw new Error("the issuer is another");
  if (!(now < claims.exp + LEEWAY && now >= claims.iat - LEEWAY)) throw new Error("it has expired, or is not valid yet");
  if (claims.host !== bareHost(host)) throw new Error("it is for another host");
  return claims;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [where, host, token] = process.argv.slice(2);
  const jwks = /^https?:/.test(where) ? await (await fetch(where)).json() : JSON.parse(await readFile(where));
  try {
    console.log(JSON.stringify(verify(token, jwks, host)));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
