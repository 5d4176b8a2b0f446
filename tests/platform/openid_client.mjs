// What an application does by npm's openid-client. Started with what to do it with, as JSON; it prints one object: for
// each flow what came of it, or its error.

import assert from 'node:assert/strict';
import * as client from 'openid-client';
import { UserAgent, formOf, requester } from './user_agent.mjs';

const given = JSON.parse(process.argv[2]);
const request = requester(given);
const callback = `${given.party}/callback`;

async function discovered(tenant, id, secret) {
  const method = secret ? client.ClientSecretBasic(secret) : client.None();
  return client.discovery(new URL(given[tenant]), id, undefined, method, { [client.customFetch]: request });
}

// Log in as a user of acme does, up to the redirect to the application, or the page of form_post.
async function logIn(config, parameters = {}, browser = new UserAgent(request)) {
  const verifier = client.randomPKCECodeVerifier();
  const checks = { pkceCodeVerifier: verifier, expectedState: client.randomState(), expectedNonce: client.randomNonce() };
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: callback,
    scope: 'openid profile email',
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state: checks.expectedState,
    nonce: checks.expectedNonce,
    ...parameters,
  });
  const login = await browser.open(url, callback);
  assert.equal(login.status, 200, login.page);
  assert(login.url.href.startsWith(`${given.acme}/v1/auth/login/`), login.url.href);
  const end = await browser.submit(login, { name: 'ada', password: 'demo' }, callback);
  return { browser, checks, end };
}

async function tokensOf(config) {
  const { browser, checks, end } = await logIn(config);
  return { browser, tokens: await client.authorizationCodeGrant(config, end.url, checks) };
}

async function refused(asking) {
  try {
    await asking;
  } catch (error) {
    return { status: error.status ?? error.response?.status, error: error.error ?? error.code };
  }
  throw new Error('it was not refused');
}

const flows = {
  async discovery() {
    const found = {};
    for (const tenant of ['acme', 'globex']) {
      const metadata = (await discovered(tenant, 'web', given.secrets[tenant])).serverMetadata();
      const urls = Object.entries(metadata).filter(([name]) => /_endpoint$|_uri$/.test(name));
      found[tenant] = { issuer: metadata.issuer, urls: Object.fromEntries(urls) };
    }
    return found;
  },

  async code() {
    const config = await discovered('acme', 'web', given.secrets.acme);
    const { browser, tokens } = await tokensOf(config);
    const user = await client.fetchUserInfo(config, tokens.access_token, 'ada');
    const at = await client.tokenIntrospection(config, tokens.access_token);
    const elsewhere = await discovered('globex', 'web', given.secrets.globex);
    const foreign = await client.tokenIntrospection(elsewhere, tokens.access_token);
    const page = await request(`${given.acme}/v1/users/me`, { headers: { authorization: `Bearer ${tokens.access_token}` } });
    return { claims: tokens.claims(), user, at, foreign, cookies: browser.cookies(given.acme), me: await page.json() };
  },

  // A code that was stolen is worth nothing without the verifier (RFC 7636).
  async stolenCode() {
    const config = await discovered('acme', 'web', given.secrets.acme);
    const { checks, end } = await logIn(config);
    return refused(client.authorizationCodeGrant(config, end.url, { ...checks, pkceCodeVerifier: client.randomPKCECodeVerifier() }));
  },

  async formPost() {
    const config = await discovered('acme', 'web', given.secrets.acme);
    const { checks, end } = await logIn(config, { response_mode: 'form_post' });
    const { action, fields } = formOf(end.page);
    const posted = new Request(action, { method: 'POST', body: new URLSearchParams(fields) });
    const tokens = await client.authorizationCodeGrant(config, posted, checks);
    return { action, claims: tokens.claims() };
  },

  // Each refresh gives a new token; who comes with an old one ends them all (RFC 9700 section 4.14.2).
  async refresh() {
    const config = await discovered('acme', 'web', given.secrets.acme);
    const { tokens } = await tokensOf(config);
    const next = await client.refreshTokenGrant(config, tokens.refresh_token);
    const user = await client.fetchUserInfo(config, next.access_token, 'ada');
    const replayed = await refused(client.refreshTokenGrant(config, tokens.refresh_token));
    const ended = await refused(client.refreshTokenGrant(config, next.refresh_token));
    return { rotated: next.refresh_token !== tokens.refresh_token, sub: user.sub, replayed, ended };
  },

  async revocation() {
    const config = await discovered('acme', 'web', given.secrets.acme);
    const { tokens } = await tokensOf(config);
    await client.tokenRevocation(config, tokens.access_token);
    const at = await client.tokenIntrospection(config, tokens.access_token);
    return { at, user: await refused(client.fetchUserInfo(config, tokens.access_token, 'ada')) };
  },

  async device() {
    const config = await discovered('acme', 'tv');
    const begun = await client.initiateDeviceAuthorization(config, { scope: 'openid profile' });
    const type = 'urn:ietf:params:oauth:grant-type:device_code';
    const early = await refused(client.genericGrantRequest(config, type, { device_code: begun.device_code }));
    const browser = new UserAgent(request);
    const code = await browser.open(begun.verification_uri_complete);
    const confirming = await browser.submit(code, {});
    const login = await browser.submit(confirming, {});
    const done = await browser.submit(login, { name: 'ada', password: 'demo' });
    const tokens = await client.pollDeviceAuthorizationGrant(config, { ...begun, interval: 0.1 });
    return { at: begun.verification_uri, early, done: done.status, claims: tokens.claims() };
  },

  async wrongPassword() {
    const config = await discovered('acme', 'web', given.secrets.acme);
    const url = client.buildAuthorizationUrl(config, {
      redirect_uri: callback,
      scope: 'openid',
      code_challenge: await client.calculatePKCECodeChallenge(client.randomPKCECodeVerifier()),
      code_challenge_method: 'S256',
    });
    const browser = new UserAgent(request);
    const wrong = await browser.submit(await browser.open(url, callback), { name: 'ada', password: 'guess' });
    return { status: wrong.status, limited: wrong.fields.get('ratelimit-policy')?.includes('login-failures') };
  },

  async logout() {
    const config = await discovered('acme', 'web', given.secrets.acme);
    const { browser, tokens } = await tokensOf(config);
    const before = browser.cookies(given.acme);
    const back = `${given.party}/`;
    const state = client.randomState();
    const url = client.buildEndSessionUrl(config, { id_token_hint: tokens.id_token, post_logout_redirect_uri: back, state });
    const asked = await browser.open(url, back);
    const end = await browser.submit(asked, { logout: 'yes' }, back);
    const refresh = await refused(client.refreshTokenGrant(config, tokens.refresh_token));
    const { sid, sub } = tokens.claims();
    return { before, after: browser.cookies(given.acme), same: end.url.searchParams.get('state') === state, refresh, sid, sub };
  },
};

const results = {};
for (const [name, flow] of Object.entries(flows)) {
  try {
    results[name] = { result: await flow() };
  } catch (error) {
    results[name] = { error: `${error.stack}\n${error.cause ?? ''}` };
  }
}
console.log(JSON.stringify(results));
process.exit(0);
