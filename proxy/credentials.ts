/**
 * The tokens file: who may do what over TCP. One line each, `#` begins a comment:
 *
 *     NAME  SECRET  RIGHT:GROUP ...
 *     grafana   sha256:9f86d081...   observe:*
 *     web-eng   8c41f0d2a7...        checkpoint:web  observe:db
 *     backup    cert:backup-host     administer:web
 *     8c41f0d2a7...                                        (alone on its line: everything)
 *
 * SECRET is a bearer token, the SHA-256 of one, or the common name of a client certificate. An
 * error names the line and never shows what stands in it.
 */
import { sha256 } from './api/access.ts';
import type { Credential } from './api/access.ts';
import { EVERY_GROUP, everything, RIGHTS } from './api/caller.ts';
import type { Right } from './api/caller.ts';
import { ConfigError } from './config.ts';
import { readSecret } from './trust.ts';

export const TOKENS_KEY = 'control.tcp.tokens';
const TOKEN_CHARACTERS_MIN = 16;
const LINES_MAX = 4096;

export function readCredentials(file: string): readonly Credential[] {
  return parseCredentials(file, readSecret(TOKENS_KEY, file));
}

export function parseCredentials(file: string, text: string): readonly Credential[] {
  const lines = text.split('\n').map((line, i) => ({ at: i + 1, words: line.replace(/(^|\s)#.*$/, '').trim().split(/\s+/).filter((word) => word !== '') }));
  const credentials: Credential[] = [];
  const seen = new Set<string>();
  for (const { at, words } of lines) {
    if (words.length === 0) continue;
    const fail = (problem: string): never => {
      throw new ConfigError(`${TOKENS_KEY} ${file}:${at}: ${problem}`);
    };
    const credential = credentialOf(words, at, fail);
    credentials.push(credential);
    if (credentials.length > LINES_MAX) fail(`more than ${LINES_MAX} lines; take some out`);
    mustDiffer(credential, seen, fail);
  }
  if (credentials.length === 0) throw new ConfigError(`${TOKENS_KEY} ${file} has no token; write one a line, as from: openssl rand -hex 32`);
  return credentials;
}

type FailLine = (problem: string) => never;

function credentialOf(words: readonly string[], at: number, fail: FailLine): Credential {
  const [name = '', secret, ...grants] = words;
  if (secret === undefined) return { proof: proofOf(name, fail), caller: everything(`token-${at}`) };
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(name)) fail('a name is 1 to 64 letters, digits, ".", "_" or "-"');
  if (grants.length === 0) fail('what may it do? Write NAME SECRET RIGHT:GROUP, as checkpoint:web or observe:*');
  const rights = new Map<string, Right>();
  for (const grant of grants) {
    const [word = '', group, more] = grant.split(':');
    const right = RIGHTS.find((one) => one === word);
    if (right === undefined || group === undefined || more !== undefined || !(group === EVERY_GROUP || /^[a-z0-9-]{1,32}$/.test(group))) {
      return fail(`a right is ${RIGHTS.join(', ')}, then ":", then a group or "*", as checkpoint:web`);
    }
    const before = rights.get(group);
    if (before === undefined || RIGHTS.indexOf(before) < RIGHTS.indexOf(right)) rights.set(group, right);
  }
  return { proof: proofOf(secret, fail), caller: { name, rights } };
}

function proofOf(secret: string, fail: FailLine): Credential['proof'] {
  if (secret.startsWith('cert:')) {
    const name = secret.slice('cert:'.length);
    return name === '' ? fail('cert: needs the common name of a client certificate, as cert:backup-host') : { kind: 'certificate', name };
  }
  if (secret.startsWith('sha256:')) {
    const digest = secret.slice('sha256:'.length).toLowerCase();
    if (!/^[0-9a-f]{64}$/.test(digest)) fail('sha256: needs 64 hexadecimal digits, as from: printf %s TOKEN | sha256sum');
    return { kind: 'token', sha256: digest };
  }
  if (secret.length < TOKEN_CHARACTERS_MIN) fail(`the token is shorter than ${TOKEN_CHARACTERS_MIN} characters; make one with: openssl rand -hex 32`);
  return { kind: 'token', sha256: sha256(secret) };
}

/** `seen`: proofs and names of the lines before. */
function mustDiffer({ proof, caller }: Credential, seen: Set<string>, fail: FailLine): void {
  const [secret, name] = [`secret ${JSON.stringify(proof)}`, `name ${caller.name}`];
  if (seen.has(secret)) fail('the same secret stands on an earlier line; whose it is can\'t be told');
  if (seen.has(name)) fail('the same name stands on an earlier line; give each its own');
  seen.add(secret).add(name);
}
