// The auth service: the page on which users log in, below /v1/auth/login.

import { timingSafeEqual } from 'node:crypto';

const LONGEST_FORM = 4096;

export function loginPages({ provider, users }) {
  return async (request, response) => {
    const { uid, prompt } = await provider.interactionDetails(request, response);
    if (request.method !== 'POST') return page(response, 200, uid, `Log in: ${prompt.name}`);
    const form = new URLSearchParams(await read(request));
    const name = form.get('name') ?? '';
    if (!Object.hasOwn(users, name) || !same(users[name], form.get('password') ?? '')) {
      // The gateway's limit "login-failures" counts this status.
      return page(response, 401, uid, 'Wrong name or password');
    }
    return provider.interactionFinished(request, response, { login: { accountId: name } });
  };
}

function page(response, status, uid, title) {
  response.writeHead(status, {
    'content-type': 'text/html; charset=utf-8',
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  });
  response.end(`<!DOCTYPE html><title>${title}</title><h1>${title}</h1>
<form method="post" action="/v1/auth/login/${uid}">
<label>Name <input name="name" autocomplete="username"></label>
<label>Password <input name="password" type="password" autocomplete="current-password"></label>
<button>Log in</button></form>`);
}

async function read(request) {
  let text = '';
  for await (const piece of request.setEncoding('utf8')) {
    text += piece;
    if (text.length > LONGEST_FORM) throw Object.assign(new Error('the form is too long'), { status: 413 });
  }
  return text;
}

function same(one, other) {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}
