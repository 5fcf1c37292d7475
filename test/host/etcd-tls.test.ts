import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Cluster } from '../../bench/bed/cluster.ts';
import { sleep, until } from '../../bench/bed/commands.ts';
import { Oracle } from '../../bench/bed/oracle.ts';
import type { PacketPort } from '../../bench/bed/packet-port.ts';
import { parseProbe, probeFlow } from '../../bench/bed/probe.ts';
import { HostsEngine } from '../../bench/hosts/engine.ts';
import { GROUP, groupFile, speakers, type Seat } from '../../bench/hosts/story.ts';
import { Certificates } from '../support/certificates.ts';
import { UNPRIVILEGED } from './privilege.ts';

/** An etcd that asks its clients for a certificate, and a group on two hosts that rests on it. */
const directory = mkdtempSync(join(tmpdir(), 'sl-etcd-tls-'));
const made = new Certificates(directory);
const shown = (name: string) => ({ ca: made.file('ca.pem'), cert: made.file(`${name}.pem`), key: made.file(`${name}.key`) });
/** h2's own, at one path all along: what the files hold is exchanged. */
const own = { ca: made.file('own-ca.pem'), cert: made.file('own.pem'), key: made.file('own.key') };
function put(name: string, ca = 'ca'): void {
  for (const [from, to] of [[`${ca}.pem`, own.ca], [`${name}.pem`, own.cert], [`${name}.key`, own.key]] as const) copyFileSync(made.file(from), to);
}
const SEATS: readonly Seat[] = [0, 1].map((i) => ({ is: i, tap: i }));
const WAIT_MS = 30_000;

describe.skipIf(UNPRIVILEGED)('etcd with client certificates', () => {
  let cluster: Cluster;
  let engine: HostsEngine;
  let outside: PacketPort;
  let sent = 0;
  const seen = new Set<number>();

  beforeAll(async () => {
    made.certify('ca');
    made.certify('etcd', 'ca', ['10.77.0.1']);
    made.certify('host', 'ca');
    made.certify('other');
    made.certify('stranger', 'other');
    made.expired('late', 'ca');
    put('host');
    cluster = await Cluster.create({ hosts: 2, members: [{ kind: 'tap', host: 0 }, { kind: 'tap', host: 1 }], etcdNodes: 1, tls: { etcd: shown('etcd'), host: own } });
    outside = cluster.bed.outside();
    engine = new HostsEngine(cluster, new Oracle(), GROUP);
    await engine.protect(groupFile(cluster, SEATS), speakers(cluster, SEATS));
  }, 90_000);
  afterAll(async () => {
    await engine.stop();
    await cluster.close();
    rmSync(directory, { recursive: true, force: true });
  });

  const committed = async (): Promise<number[]> => [(await engine.state(0)).committed, (await engine.state(1)).committed];
  /** From h2's member to the outside. */
  function speak(): number {
    const frame = probeFlow(cluster.bed.member(1).address, cluster.bed.outsider.address, 1);
    cluster.bed.tap(1).send(frame((sent += 1)));
    return sent;
  }
  const isOut = (number: number): boolean => {
    outside.drain((frame) => {
      const probe = parseProbe(frame);
      if (probe !== undefined) seen.add(probe.seq);
    });
    return seen.has(number);
  };
  async function commits(): Promise<void> {
    const [number, last] = [speak(), engine.open];
    await engine.epoch();
    await until('both hosts have committed it', async () => (await committed()).every((epoch) => epoch === last), WAIT_MS);
    await until('it is outside', () => isOut(number), WAIT_MS);
  }

  test('a group commits over it', () => commits());

  const lines = (): number => cluster.daemon(1).log().split('\n').filter((one) => one.includes('etcd at https://10.77.0.1:2379 did not do it')).length;
  /** Why a command that needs the ledger is not done; this one could change nothing if it were. */
  async function why(): Promise<string> {
    const { body } = await cluster.daemon(1).api.call('POST', `/v1/groups/${GROUP}/takeover`, { generation: engine.generation, epoch: 1_000_000 });
    return JSON.stringify(body);
  }
  /** Neither host hears of the other, nothing leaves, and h2 says why: to who asks, and once in its log. */
  async function holds(before: number, line: RegExp): Promise<void> {
    await until(`h2 says ${line}`, async () => line.test(await why()), WAIT_MS);
    await until('its log says so', () => lines() > before, WAIT_MS);
    const [was, number] = [await committed(), speak()];
    await engine.epoch();
    await sleep(700); // a heartbeat, and twenty tries of the ack, lie in it
    expect(lines() - before, 'it is not said at each try').toBeLessThan(4);
    expect(await committed()).toEqual(was);
    expect(isOut(number)).toBe(false);
    expect((await engine.state(1)).phase).toBe('protected');
    expect((await cluster.daemon(1).api.call('GET', '/readyz')).status).toBe(503);
  }

  test.each([
    ['a certificate of another CA', 'stranger', 'ca', /does not accept ledger\.etcd\.tls\.cert, CN=stranger signed by CN=other: show it one of the CA it trusts/],
    ['an expired certificate', 'late', 'ca', /ledger\.etcd\.tls\.cert has expired on .* GMT: renew it and send SIGHUP/],
    ['trust in another CA', 'host', 'other', /its certificate is not one that ledger\.etcd\.tls\.ca has signed/],
  ])('%s, read on SIGHUP: one line says it, h2 holds; the right one again: what waited is committed', async (_, name, ca, line) => {
    const before = lines();
    put(name, ca);
    cluster.daemon(1).signal('SIGHUP');
    await holds(before, line);
    put('host');
    cluster.daemon(1).signal('SIGHUP');
    await until('what waited is committed', async () => (await committed()).every((epoch) => epoch === engine.open - 1), WAIT_MS);
    await commits();
  }, 60_000);

  test('files that don\'t fit together are not taken', async () => {
    copyFileSync(made.file('other.key'), own.key);
    cluster.daemon(1).signal('SIGHUP');
    await until('it says so', () => /the files of ledger\.etcd\.tls don't fit together .*; the old ones stay in use/.test(cluster.daemon(1).log()), WAIT_MS);
    await commits();
  }, 60_000);

  test('no certificate: it starts, says so, and holds', async () => {
    await cluster.shows(1, { ca: made.file('ca.pem') });
    await cluster.daemon(1).start('live');
    await holds(0, /where it asks its clients for a certificate, set ledger\.etcd\.tls\.cert and key/);
  }, 60_000);
});
