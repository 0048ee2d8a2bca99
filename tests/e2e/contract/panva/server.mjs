// A certified OpenID provider on loopback, for tests alone. It reads one JSON line of settings from standard input and
// writes one line, {"issuer": ...}, when it listens. It ends when its standard input does.
//
// Settings: mode "jwt" or "opaque"; audience (the API's resource indicator); scope of API tokens; everybody's roles;
// client, api: {id, secret}; redirect_uris, post_logout_redirect_uris, logout_uri (may be empty); people: {login:
// {password, name, email, sub}}.
import { createRequire } from 'node:module';
import { generateKeyPairSync } from 'node:crypto';
import { createServer, request as plain } from 'node:http';
import { request as secure } from 'node:https';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const installed = createRequire(`${process.cwd()}/`).resolve('oidc-provider');
const { Provider } = await import(pathToFileURL(installed));
const lines = createInterface({ input: process.stdin });
const settings = JSON.parse(await new Promise((known) => lines.once('line', known)));
lines.once('close', () => process.exit(0));

const server = createServer();
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const issuer = `http://127.0.0.1:${server.address().port}`;

const key = (kind, options, fields) => ({ ...generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' }), use: 'sig', ...fields });

// Names below .localhost are 127.0.0.1 here, and the loopback is no forbidden place.
const post = (address, { headers, body }) => new Promise((done, failed) => {
  const to = new URL(address);
  const lookup = to.hostname.endsWith('.localhost')
    ? (_, { all }, found) => (all ? found(null, [{ address: '127.0.0.1', family: 4 }]) : found(null, '127.0.0.1', 4))
    : undefined;
  const sent = (to.protocol === 'https:' ? secure : plain)(to, { method: 'POST', headers: Object.fromEntries(headers), lookup, timeout: 2500 }, (answer) => {
    answer.resume();
    answer.on('end', () => done(new Response(null, { status: answer.statusCode })));
  });
  sent.on('error', failed);
  sent.on('timeout', () => sent.destroy(new Error('no answer in time')));
  sent.end(String(body));
});

const ACR = 'urn:contract:mfa', AMR = ['pwd', 'otp', 'mfa'];
const none = { redirect_uris: [], grant_types: [], response_types: [] };
const provider = new Provider(issuer, {
  jwks: { keys: [key('rsa', { modulusLength: 2048 }, { kid: 'rsa-1', alg: 'RS256' }), key('ec', { namedCurve: 'P-256' }, { kid: 'ec-1', alg: 'ES256' })] },
  cookies: { keys: ['loopback'] },
  clients: [
    {
      client_id: settings.client.id,
      client_secret: settings.client.secret,
      redirect_uris: settings.redirect_uris,
      post_logout_redirect_uris: settings.post_logout_redirect_uris,
      response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token'],
      ...(settings.logout_uri ? { backchannel_logout_uri: settings.logout_uri, backchannel_logout_session_required: true } : {}),
    },
    { client_id: settings.api.id, client_secret: settings.api.secret, ...none },
  ],
  claims: { openid: ['sub', 'amr', 'acr', 'auth_time'], profile: ['name', 'roles'], email: ['email', 'email_verified'] },
  acrValues: [ACR],
  findAccount: (_, sub) => {
    const found = Object.values(settings.people).find((one) => one.sub === sub);
    return found && { accountId: sub, claims: () => ({ sub, name: found.name, email: found.email, email_verified: true, roles: settings.roles }) };
  },
  // RFC 9068 sections 2.2.1 and 2.2.3.1.
  extraTokenClaims: () => ({ roles: settings.roles, amr: AMR }),
  pkce: { required: () => true },
  rotateRefreshToken: true,
  // A refresh token for every sign-in, as a first-party application has it; by default prompt=consent is needed.
  issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
  // Nobody is asked for consent.
  loadExistingGrant: async (ctx) => {
    const { client, session, provider: at } = ctx.oidc;
    const held = session.grantIdFor(client.clientId);
    const grant = (held && (await at.Grant.find(held))) || new at.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid profile email offline_access');
    grant.addResourceScope(settings.audience, settings.scope);
    await grant.save();
    return grant;
  },
  interactions: { url: (_, { uid }) => `/interaction/${uid}` },
  features: {
    devInteractions: { enabled: false },
    revocation: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (_, client, token) => [settings.api.id, token.clientId].includes(client.clientId) },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: settings.scope, audience: settings.audience, accessTokenFormat: settings.mode, accessTokenTTL: 300 }),
    },
  },
  fetch: post,
  ttl: { AccessToken: 300, AuthorizationCode: 60, Grant: 3600, IdToken: 300, Interaction: 600, RefreshToken: 3600, Session: 3600 },
});

const page = (said) => `<!doctype html><title>Sign in</title><p>${said}</p><form method="post">
<input name="login"><input name="password" type="password"><button>Sign in</button></form>`;

const interaction = async (request, answer) => {
  await provider.interactionDetails(request, answer);
  answer.setHeader('content-type', 'text/html');
  if (request.method !== 'POST') return answer.end(page(''));
  let body = '';
  for await (const part of request) body += part;
  const form = new URLSearchParams(body);
  const person = settings.people[form.get('login')];
  if (!person || person.password !== form.get('password')) return answer.writeHead(403).end(page('No.'));
  const login = { accountId: person.sub, acr: ACR, amr: AMR, ts: Math.floor(Date.now() / 1000) };
  return provider.interactionFinished(request, answer, { login });
};

const others = provider.callback();
server.on('request', (request, answer) => {
  if (!request.url.startsWith('/interaction/')) return others(request, answer);
  return interaction(request, answer).catch(() => answer.writeHead(400).end());
});
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
