/** Certificates for a test, made here by openssl: `NAME.pem` and `NAME.key` in one directory. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

export class Certificates {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  file(name: string): string {
    return join(this.#directory, name);
  }

  /** A certificate of `name`, signed by `ca` or by itself. `addresses`: what it is good for as a server's. */
  certify(name: string, ca?: string, addresses: readonly string[] = ['127.0.0.1']): void {
    this.#openssl('req', '-x509', ...KEY, '-days', '2', '-subj', `/CN=${name}`, '-addext', `subjectAltName=${addresses.map((address) => `IP:${address}`).join(',')}`,
      '-keyout', `${name}.key`, '-out', `${name}.pem`, ...(ca === undefined ? [] : ['-CA', `${ca}.pem`, '-CAkey', `${ca}.key`]));
  }

  /** One whose time is over. */
  expired(name: string, ca: string): void {
    this.#openssl('req', '-new', ...KEY, '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`);
    this.#openssl('x509', '-req', '-in', `${name}.csr`, '-CA', `${ca}.pem`, '-CAkey', `${ca}.key`, '-CAcreateserial', '-days', '-1', '-out', `${name}.pem`);
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { stdio: 'ignore', cwd: this.#directory });
  }
}

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'] as const;
