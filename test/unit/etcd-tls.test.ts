import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { whyOf } from '../../proxy/edge/etcd-tls.ts';
import { Certificates } from '../support/certificates.ts';

const directory = mkdtempSync(join(tmpdir(), 'sl-why-'));
const made = new Certificates(directory);
const text = (name: string): string => readFileSync(made.file(name), 'utf8');
beforeAll(() => {
  made.certify('ca');
  made.certify('host', 'ca');
});
afterAll(() => rmSync(directory, { recursive: true }));

const failure = (code: string, message = 'other side closed'): Error => Object.assign(new Error(message), { code });

test('why etcd was not reached over TLS, in words that name the file', () => {
  const shown = { ca: text('ca.pem'), cert: text('host.pem'), key: text('host.key') };
  const bare = { ...shown, cert: undefined, key: undefined };
  const now = Date.now();
  expect(whyOf(failure('ECONNRESET'), shown, now)).toBe('other side closed; where that stays so it does not accept ledger.etcd.tls.cert, CN=host signed by CN=ca: show it one of the CA it trusts');
  expect(whyOf(failure('ECONNRESET'), shown, now + 3 * 86_400_000)).toMatch(/cert has expired on .*: renew it and send SIGHUP/);
  expect(whyOf(failure('ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', 'alert'), bare, now)).toBe('alert; where it asks its clients for a certificate, set ledger.etcd.tls.cert and key');
  expect(whyOf(failure('CERT_HAS_EXPIRED'), shown, now)).toBe('its certificate has expired');
  expect(whyOf(failure('SELF_SIGNED_CERT_IN_CHAIN', 'self-signed'), shown, now)).toBe('its certificate is not one that ledger.etcd.tls.ca has signed (self-signed)');
  expect(whyOf(failure('ECONNREFUSED', 'connect ECONNREFUSED'), shown, now), 'nobody is there: no word of certificates').toBe('connect ECONNREFUSED');
  expect(whyOf(failure('ECONNRESET'), undefined, now), 'no TLS').toBe('other side closed');
});
