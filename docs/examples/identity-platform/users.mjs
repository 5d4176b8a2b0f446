// The identity service, as far as this demo has one: who am I, an upload, server-sent events and a WebSocket.

import { createHash } from 'node:crypto';
import { on } from 'node:events';
import { WebSocketServer } from 'ws';

const TICK = 100; // milliseconds
const WAITING = 16; // messages of a WebSocket that wait before no more are read

export function usersOf({ provider, slug }) {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: 1 << 20 });

  async function account(request) {
    const [scheme, token] = (request.headers.authorization ?? '').split(' ');
    return scheme.toLowerCase() === 'bearer' && token ? provider.AccessToken.find(token) : undefined;
  }

  async function answer(request, response) {
    const path = request.url.split('?')[0];
    // An EventSource cannot send a token; these events tell nobody's secrets.
    if (path === '/v1/users/events') return events(request, response, slug);
    const token = await account(request);
    if (!token) {
      return json(response, 401, { error: 'invalid_token' }, { 'www-authenticate': 'Bearer error="invalid_token"' });
    }
    if (path === '/v1/users/me') return json(response, 200, { sub: token.accountId, tenant: slug, ...seen(request) });
    if (path === '/v1/users/me/picture' && request.method === 'PUT') {
      return json(response, 200, { tenant: slug, ...(await digest(request)) });
    }
    return json(response, 404, { error: 'not_found' });
  }

  function upgrade(request, socket, head) {
    sockets.handleUpgrade(request, socket, head, (ws) => {
      ws.on('error', () => ws.terminate());
      converse(ws).catch(() => ws.terminate());
    });
  }

  // A WebSocket cannot send a token in a header either: its first message has it. The others come back.
  async function converse(ws) {
    const messages = on(ws, 'message', { close: ['close'], highWaterMark: WAITING });
    let token;
    for await (const [data, isBinary] of messages) {
      if (token) {
        ws.send(data, { binary: isBinary });
        continue;
      }
      token = await provider.AccessToken.find(String(data));
      if (!token) return ws.close(4401, 'invalid token');
      ws.send(JSON.stringify({ sub: token.accountId, tenant: slug }));
    }
    return undefined;
  }

  return { answer, upgrade };
}

// What the gateway says of the client.
function seen(request) {
  const { host, 'x-forwarded-for': address, 'x-forwarded-proto': scheme, 'x-forwarded-host': name } = request.headers;
  return { host, address, scheme, name, id: request.headers['x-request-id'] };
}

async function digest(request) {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const piece of request) {
    hash.update(piece);
    bytes += piece.length;
  }
  return { bytes, sha256: hash.digest('hex') };
}

function events(request, response, tenant) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  let id = Number(request.headers['last-event-id'] ?? 0) || 0;
  const ticks = setInterval(() => {
    id += 1;
    response.write(`id: ${id}\ndata: ${JSON.stringify({ tick: id, tenant })}\n\n`);
  }, TICK);
  response.on('close', () => clearInterval(ticks));
}

function json(response, status, body, fields = {}) {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...fields });
  response.end(JSON.stringify(body));
}
