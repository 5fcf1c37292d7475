/**
 * The API fuzzed from its own schema, over real TCP: requests made from /openapi.json, some right,
 * most wrong in one place, by callers of every kind.
 *
 *     powerless (no token, wrong one, observe, another group's) ─► never 2xx on a command; nothing
 *                                                                  of group web changes or shows
 *     an administrator of group fuzz ───────────────────────────► anything; web stays as it is
 *
 * No answer is a 5xx, except plane_down for ports that are not there, which is the truth. The seed
 * is printed; SLUICE_SEED runs it again, SLUICE_FUZZ says how many (`make fuzz`: 50,000).
 */
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { run } from '../../bench/bed/commands.ts';
import { Seeded } from '../support/ring-fixture.ts';
import { Line } from '../support/tcp.ts';
import type { Asked, Place } from '../support/tcp.ts';
import { Requests } from '../support/fuzz.ts';
import type { Document } from '../support/fuzz.ts';
import { UNPRIVILEGED } from './privilege.ts';

const COUNT = Number(process.env['SLUICE_FUZZ'] ?? 1500);
const SEED = Number(process.env['SLUICE_SEED'] || Date.now() % 1e9);
const PORT = 7445;
const token = (who: string): string => `${who}-secret-0123456789abcdef`;
/** Said nowhere but in group web: where it shows, something leaked. */
const CANARY = 'canary-7f3a';

let bed: Bed;
let place: Place;
const api = () => bed.daemon().api;
async function web(): Promise<string> {
  const group = (await api().must('GET', '/v1/groups/web')) as Record<string, unknown>;
  return JSON.stringify({ ...group, held: undefined });
}

beforeAll(async () => {
  if (UNPRIVILEGED !== undefined) return;
  bed = await Bed.create({ members: ['veth', 'veth', 'veth', 'veth'], addresses: false });
  await run('ip', ['-n', bed.host, 'link', 'set', 'lo', 'up']);
  const tokens = join(bed.directory, 'tokens');
  writeFileSync(tokens, `fuzz ${token('fuzz')} administer:fuzz\neye ${token('eye')} observe:web\nother ${token('other')} checkpoint:other\n`);
  chmodSync(tokens, 0o600);
  await bed.daemon({ tcp: { listen: `127.0.0.1:${PORT}`, tokens }, auditFile: join(bed.directory, 'audit.log') }).start();
  place = { namespace: bed.host, port: PORT };
  const members = bed.members.slice(0, 2).map(({ port, mac }, i) => ({ name: `${CANARY}-${i}`, port, mac }));
  await api().must('PUT', '/v1/groups/web', { members });
  await api().must('POST', '/v1/groups/web/protect', {});
});
afterAll(() => bed?.close());

/** Several commands on the caller's own group, which is not there: the request is answered, and each of them refused. */
function onlyRefused(text: string): boolean {
  const reply = text.startsWith('{"answers":') ? (JSON.parse(text) as { answers: { code?: string; group?: string }[] }) : { answers: [] };
  return reply.answers.length > 0 && reply.answers.every(({ code, group }) => code === 'no_such_group' && group === 'other');
}

describe.skipIf(UNPRIVILEGED !== undefined)(`fuzz, seed ${SEED}`, () => {
  test('no 5xx, no change without the right, no leak', async () => {
    const document = (await api().must('GET', '/openapi.json')) as Document;
    const random = new Seeded(SEED);
    const requests = new Requests(document, random, { groups: ['web', 'fuzz', 'fuzz', 'fuzz', 'other'], members: ['m1', 'x'], ports: ['port3', 'port4', 'port3', 'port4', 'port1', 'port9'] });
    const before = await web();
    const tally = new Map<number, number>();
    const one = async (line: Line): Promise<void> => {
      const who = random.pick(['nobody', 'wrong', 'eye', 'other', 'fuzz', 'fuzz', 'fuzz', 'fuzz', 'fuzz']);
      const asked: Asked = { ...requests.next(), ...(who === 'nobody' ? {} : { token: token(who) }) };
      const { status, text } = await line.ask(asked);
      tally.set(status, (tally.get(status) ?? 0) + 1);
      const about = `seed ${SEED}, ${who}: ${asked.method} ${asked.path} ${asked.body ?? ''} -> ${status} ${text.slice(0, 300)}`;
      if (status >= 500) expect(text, about).toMatch(/"code":"plane_down"|"ready":false/);
      if (who !== 'eye') expect(text, about).not.toContain(CANARY);
      if (asked.method !== 'GET' && who !== 'fuzz' && !(who === 'other' && onlyRefused(text))) expect(status, about).toBeGreaterThanOrEqual(400);
      expect(text, about).not.toMatch(/secret-0123|node_modules|\bat .*\.js:\d/);
    };
    const CLIENTS = 8;
    let left = COUNT;
    const client = async (): Promise<void> => {
      const line = new Line(place);
      while (left-- > 0) await one(line);
    };
    await Promise.all(Array.from({ length: CLIENTS }, client));
    console.log(`fuzz: ${COUNT} requests, seed ${SEED}: ${JSON.stringify(Object.fromEntries([...tally].sort(([a], [b]) => a - b)))}`);
    expect(await web()).toBe(before);
    expect(tally.get(0) ?? 0).toBe(0);
    for (const status of [200, 400, 401, 403, 404, ...(COUNT >= 10_000 ? [409] : [])]) expect(tally.get(status) ?? 0, `some ${status}`).toBeGreaterThan(0);
    expect(await api().call('GET', '/healthz')).toMatchObject({ status: 200 });
    expect(bed.daemon().log()).not.toMatch(/"level":(50|60)|internal error/);
  }, 600_000);
});
