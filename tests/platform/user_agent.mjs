// A browser as far as logging in needs one: cookies by the rules of RFC 6265 and its prefixes, redirects, and forms.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Agent, Headers, fetch } from 'undici';

const HOPS = 10;

// Requests by HTTP/2 or HTTP/1.1 to this machine, whatever the name: RFC 6761 section 6.3.
export function requester({ ca, http2 }) {
  const lookup = (_, options, done) =>
    options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4);
  const dispatcher = new Agent({ allowH2: http2, connect: { ca: readFileSync(ca), lookup } });
  return (url, options = {}) => {
    const headers = new Headers(options.headers);
    // By this name its requests are found in the access log.
    headers.set('user-agent', http2 ? 'node http/2' : 'node http/1.1');
    return fetch(url, { ...options, headers, dispatcher });
  };
}

export class UserAgent {
  #cookies = [];
  #request;

  constructor(request) {
    this.#request = request;
  }

  // The names of the cookies that a request to `url` has.
  cookies(url) {
    return this.#matching(new URL(url)).map(({ name }) => name);
  }

  // Follow redirects from `url` until one leads to `end`, or there is a page: { url, status, page }.
  async open(url, end, options = {}) {
    let [next, asked] = [new URL(url), options];
    for (let hop = 0; hop < HOPS; hop += 1) {
      if (end && next.href.startsWith(end)) return { url: next };
      const response = await this.#ask(next, asked);
      if (![302, 303].includes(response.status)) {
        return { url: next, status: response.status, page: await response.text(), fields: response.headers };
      }
      await response.body?.cancel();
      [next, asked] = [new URL(response.headers.get('location'), next), {}];
    }
    throw new Error(`too many redirects from ${url}`);
  }

  // Fill in the form of a page and send it.
  async submit({ url, page }, values, end) {
    const form = formOf(page);
    const target = new URL(form.action, url);
    const body = new URLSearchParams({ ...form.fields, ...values });
    return this.open(target, end, { method: 'POST', body, headers: { origin: url.origin, referer: url.href } });
  }

  async #ask(url, options) {
    const cookie = this.#matching(url).map(({ name, value }) => `${name}=${value}`).join('; ');
    const headers = { accept: 'text/html', ...options.headers, ...(cookie ? { cookie } : {}) };
    const response = await this.#request(url, { ...options, headers, redirect: 'manual' });
    for (const line of response.headers.getSetCookie()) this.#keep(url, line);
    return response;
  }

  #matching({ host, pathname }) {
    return this.#cookies.filter((each) => each.host === host && `${pathname}/`.startsWith(`${each.path.replace(/\/$/, '')}/`));
  }

  #keep({ host, pathname }, line) {
    const [pair, ...rest] = line.split(/; */);
    const [name, value] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)];
    const has = Object.fromEntries(rest.map((each) => each.split('=')).map(([key, of = '']) => [key.toLowerCase(), of]));
    assert('secure' in has, `${line} is not secure`);
    assert('httponly' in has, `${line} can be read by scripts`);
    if (name.startsWith('__Host-')) assert(has.path === '/' && !('domain' in has), `${line} is no __Host- cookie`);
    const path = has.path ?? pathname;
    this.#cookies = this.#cookies.filter((each) => !(each.name === name && each.host === host && each.path === path));
    const ended = 'expires' in has && Date.parse(has.expires) < Date.now();
    if (!ended) this.#cookies.push({ name, value, host, path });
  }
}

// The only form of a page, with what is in it already.
export function formOf(page) {
  const action = /<form[^>]* action="([^"]*)"/.exec(page);
  assert(action, `no form in ${page}`);
  const fields = {};
  for (const [input] of page.matchAll(/<input[^>]*>/g)) {
    const [name, value] = [/ name="([^"]*)"/.exec(input), / value="([^"]*)"/.exec(input)];
    if (name) fields[plain(name[1])] = plain(value?.[1] ?? '');
  }
  return { action: plain(action[1]), fields };
}

function plain(text) {
  return text.replaceAll('&quot;', '"').replaceAll('&#39;', "'").replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');
}
