// One tenant's OpenID provider, which answers at the gateway's default routes.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import Provider from 'oidc-provider';

// What the gateway routes to the oauth2 service. Discovery is at /.well-known/openid-configuration.
const ROUTES = {
  authorization: '/oauth/v2/authorize',
  token: '/oauth/v2/token',
  jwks: '/oauth/v2/keys',
  introspection: '/oauth/v2/introspect',
  revocation: '/oauth/v2/revoke',
  device_authorization: '/oauth/v2/device_authorization',
  code_verification: '/oauth/v2/device',
  pushed_authorization_request: '/oauth/v2/par',
  userinfo: '/oidc/v1/userinfo',
  end_session: '/oidc/v1/end_session',
};
const SCOPES = 'openid profile email';

export function makeProvider({ issuer, users, clients }) {
  const provider = new Provider(issuer, {
    clients,
    routes: ROUTES,
    scopes: SCOPES.split(' '),
    claims: { openid: ['sub'], profile: ['name'], email: ['email'] },
    // For real: keys that are kept, and a store that is kept (`adapter`). Each tenant has its own.
    jwks: { keys: [signingKey()] },
    cookies: {
      // `__Host-` needs Secure, which needs to know that the client came by https: X-Forwarded-Proto says so.
      names: { session: '__Host-session', interaction: 'login', resume: 'resume' },
      keys: [randomBytes(32)],
      long: { httpOnly: true, sameSite: 'lax', secure: true, path: '/' },
      short: { httpOnly: true, sameSite: 'lax', secure: true },
    },
    features: {
      backchannelLogout: { enabled: true },
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      deviceFlow: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
    // Whose page may call is the gateway's to decide ([cors], cors_origins): it drops what this adds.
    clientBasedCORS: () => true,
    findAccount: (_, id) => (Object.hasOwn(users, id) ? account(id) : undefined),
    interactions: { url: (_, interaction) => `/v1/auth/login/${interaction.uid}` },
    issueRefreshToken: async (_, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    loadExistingGrant: grantOf,
    pkce: { required: () => true },
    // Its own guard lets no client be at a private address; those of this demo are on this machine.
    fetch: (url, options) => fetch(url, { ...options, dispatcher: undefined }),
  });
  // X-Forwarded-Proto and -Host are the gateway's own, whatever the client has sent.
  provider.proxy = true;
  provider.on('server_error', (_, error) => console.error(error));
  return provider;
}

// Its clients are the platform's own: nobody is asked whether they may know the name.
async function grantOf(ctx) {
  const { client, session, provider, result } = ctx.oidc;
  const known = result?.consent?.grantId ?? session.grantIdFor(client.clientId);
  if (known) return provider.Grant.find(known);
  const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope(SCOPES);
  await grant.save();
  return grant;
}

function account(id) {
  return { accountId: id, claims: () => ({ sub: id, name: id, email: `${id}@example.com` }) };
}

function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomBytes(8).toString('hex'), alg: 'RS256', use: 'sig' };
}
