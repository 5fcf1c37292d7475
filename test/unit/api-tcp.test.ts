/** The API over TCP: a client certificate or a token, or nothing. Certificates are made here. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:https';
import type { RequestOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildApp } from '../../proxy/api/app.ts';
import { tcpOptions } from '../../proxy/listen.ts';
import { Certificates } from '../support/certificates.ts';
import { world } from './memory-control.ts';

let directory: string;
const file = (name: string): string => join(directory, name);
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'sl-tcp-'));
  const made = new Certificates(directory);
  made.certify('ca');
  for (const name of ['server', 'client']) made.certify(name, 'ca');
  made.certify('stranger');
  writeFileSync(file('tokens'), 'a-token-of-32-characters-or-more\n');
  chmodSync(file('tokens'), 0o600);
});
afterAll(() => rmSync(directory, { recursive: true }));

function ask(port: number, options: RequestOptions): Promise<number | string> {
  return new Promise((resolve) => {
    const request = get({ host: '127.0.0.1', port, path: '/v1/groups', ca: readFileSync(file('ca.pem')), agent: false, ...options }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.on('error', (error) => resolve('code' in error ? String(error.code) : error.message));
  });
}
const identity = (name: string): RequestOptions => ({ cert: readFileSync(file(`${name}.pem`)), key: readFileSync(file(`${name}.key`)) });

async function serving(tcp: { clientCa: boolean; tokens: boolean }, job: (port: number) => Promise<void>): Promise<void> {
  const app = await buildApp(world().deps, tcpOptions({
    listen: { host: '127.0.0.1', port: 1 },
    tls: { cert: file('server.pem'), key: file('server.key'), clientCa: tcp.clientCa ? file('ca.pem') : undefined },
    tokens: tcp.tokens ? file('tokens') : undefined,
  }));
  try {
    await app.listen({ host: '127.0.0.1', port: 0 });
    await job((app.server.address() as AddressInfo).port);
  } finally {
    await app.close();
  }
}

test('a client CA: only those whose certificate it signed', async () => {
  await serving({ clientCa: true, tokens: false }, async (port) => {
    expect(await ask(port, identity('client'))).toBe(200);
    expect(await ask(port, {})).toMatch(/^(ERR_SSL|ECONNRESET|EPROTO|EPIPE)/);
    expect(await ask(port, identity('stranger'))).toMatch(/^(ERR_SSL|ECONNRESET|EPROTO|EPIPE)/);
  });
});

test('tokens over TLS: only those who carry one', async () => {
  await serving({ clientCa: false, tokens: true }, async (port) => {
    expect(await ask(port, { headers: { authorization: 'Bearer a-token-of-32-characters-or-more' } })).toBe(200);
    expect(await ask(port, { headers: { authorization: 'Bearer a-token-of-32-characters-or-mor' } })).toBe(401);
    expect(await ask(port, {})).toBe(401);
  });
});

test('both: both are asked', async () => {
  await serving({ clientCa: true, tokens: true }, async (port) => {
    expect(await ask(port, identity('client'))).toBe(401);
    expect(await ask(port, { ...identity('client'), headers: { authorization: 'Bearer a-token-of-32-characters-or-more' } })).toBe(200);
  });
});
