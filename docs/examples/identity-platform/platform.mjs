// Three services of an identity platform for koder-gateway, in one process: identity, auth and oauth2; and the page of an
// application that its users log in to. It is started with its configuration: node platform.mjs platform.json

import { readFileSync } from 'node:fs';
import http from 'node:http';
import { loginPages } from './login.mjs';
import { makeProvider } from './provider.mjs';
import { usersOf } from './users.mjs';

const { services, tenants, application } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const known = new Map(Object.entries(tenants).map(([slug, settings]) => [slug, tenant(slug, settings)]));

function tenant(slug, settings) {
  const provider = makeProvider(settings);
  const { answer, upgrade } = usersOf({ provider, slug });
  const login = loginPages({ provider, users: settings.users });
  return { identity: answer, upgrade, auth: login, oauth2: provider.callback() };
}

// The gateway sets X-Tenant-ID on every request, and never passes on the client's own.
function tenantOf(request) {
  return known.get(request.headers['x-tenant-id']);
}

function serve(name, port) {
  const server = http.createServer(async (request, response) => {
    const found = tenantOf(request);
    if (!found) {
      response.writeHead(404, { 'content-type': 'application/json' }).end('{"error":"unknown_tenant"}');
      return;
    }
    try {
      await found[name](request, response);
    } catch (error) {
      refuse(response, error);
    }
  });
  // Longer than the gateway keeps a connection, so that it is the one to close it, never in mid-request.
  server.keepAliveTimeout = 300_000;
  // An upload may take its time: the gateway has the deadline.
  server.requestTimeout = 0;
  server.on('upgrade', (request, socket, head) => {
    const found = name === 'identity' && request.url.startsWith('/v1/users/socket') && tenantOf(request);
    if (found) found.upgrade(request, socket, head);
    else socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
  });
  server.listen(port, '127.0.0.1', () => console.log(`${name} listens on ${server.address().port}`));
}

// A page of the login that is out of date is the client's fault, anything else is ours.
function refuse(response, error) {
  const status = error.status ?? error.statusCode ?? 500;
  if (status >= 500) console.error(error);
  if (response.headersSent) return response.destroy();
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
  return response.end(JSON.stringify({ error: error.error ?? 'server_error' }));
}

// Of the Host `app.localhost`, an origin that is none of the platform's.
function serveApplication(port) {
  const page = readFileSync(new URL('application.html', import.meta.url));
  const server = http.createServer((request, response) => {
    request.resume();
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(page);
  });
  server.listen(port, '127.0.0.1', () => console.log(`the application is at http://app.localhost:${port}`));
}

for (const [name, port] of Object.entries(services)) serve(name, port);
if (application) serveApplication(application);
