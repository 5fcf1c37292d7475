/**
 * TLS to etcd: what we show it, and why it came to nothing, in words that name the file to mend.
 *
 * A server that refuses a client's certificate says so after the client has written its request: where
 * its alert comes with the end of the connection, all the client hears is that it was closed. So the words
 * for that name what is known of our own certificate, and leave room for an etcd that just died. Pure.
 */
import { X509Certificate } from 'node:crypto';

/** PEM, each. */
export interface EtcdTls {
  readonly ca: string;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

const SERVER: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet; look at both clocks',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is not for this name or address',
};
const UNKNOWN = ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'UNABLE_TO_GET_ISSUER_CERT', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'SELF_SIGNED_CERT_IN_CHAIN', 'DEPTH_ZERO_SELF_SIGNED_CERT', 'CERT_SIGNATURE_FAILURE'];
const CLOSED = ['ECONNRESET', 'EPIPE'];

export function whyOf(error: unknown, tls: EtcdTls | undefined, nowMs: number): string {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (tls === undefined) return message;
  if (SERVER[code] !== undefined) return SERVER[code];
  if (UNKNOWN.includes(code)) return `its certificate is not one that ledger.etcd.tls.ca has signed (${message})`;
  if (CLOSED.includes(code) || /^ERR_SSL_.*ALERT/.test(code)) return `${message}; ${refusedFor(tls, nowMs)}`;
  return message;
}

function refusedFor({ cert }: EtcdTls, nowMs: number): string {
  if (cert === undefined) return 'where it asks its clients for a certificate, set ledger.etcd.tls.cert and key';
  const { subject, issuer, validTo } = new X509Certificate(cert);
  if (Date.parse(validTo) <= nowMs) return `ledger.etcd.tls.cert has expired on ${validTo}: renew it and send SIGHUP`;
  return `where that stays so it does not accept ledger.etcd.tls.cert, ${inLine(subject)} signed by ${inLine(issuer)}: show it one of the CA it trusts`;
}

const inLine = (name: string): string => name.replaceAll('\n', ', ');
