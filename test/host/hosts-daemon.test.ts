import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run, sleep, until } from '../../bench/bed/commands.ts';
import { Daemon } from '../../bench/bed/daemon.ts';
import { SluiceClient } from '../../checkpoint-hooks/client.ts';
import type { Figures } from '../../proxy/api/contract.ts';
import { NAMES, ThreeHosts } from '../support/three-hosts.ts';
import { UNPRIVILEGED } from './privilege.ts';

/** One group, three sluiced, a real etcd: what an engine says to each of them, and what they do. */
interface Said {
  readonly code?: string;
  readonly message?: string;
  readonly phase?: string;
  readonly generation?: number;
  readonly committed?: number;
  readonly released?: number;
  readonly hosts?: readonly { readonly host: string; readonly acked: number; readonly late: boolean }[];
  readonly held?: { readonly frames: number };
}
/** The outsider answers them. h1 closes its members' ports when it is cut off, h2 and h3 hold. */
const addresses = ['10.88.0.100', 'fd88::100'];
const bed = new ThreeHosts((host) => ({ isolation: { addresses, everyMs: 100, afterMs: 1000, policy: host === 'h1' ? 'close' : 'hold' } }));
const WAIT_MS = 30_000;
const daemon = (host: number): Daemon => {
  const found = bed.daemons[host];
  if (found === undefined) throw new Error(`no host ${host}`);
  return found;
};

async function say(host: number, method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: object): Promise<Said> {
  return (await daemon(host).api.call(method, `/v1/groups/web${path}`, body)).body as Said;
}
/** As an engine does: on a busy machine etcd may be later than its 400 ms, and then it is asked again. */
async function insist(host: number, method: 'PUT' | 'POST', path: string, body: object): Promise<Said> {
  let said: Said = {};
  await until(`${method} ${path} is decided`, async () => (said = await say(host, method, path, body)).code !== 'ledger_down', 20_000);
  return said;
}
const state = (host: number): Promise<Said> => say(host, 'GET', '');
const everybody = (holds: (said: Said) => boolean, of = [0, 1, 2]): Promise<void> =>
  until('all hosts are there', async () => (await Promise.all(of.map(state))).every(holds), 20_000);

const figures = async (host: number): Promise<Figures> => (await daemon(host).api.call('GET', '/v1/figures')).body as Figures;
const isolation = async (host: number): Promise<NonNullable<NonNullable<Figures['across']>['isolation']>> => {
  const seen = (await figures(host)).across?.isolation;
  if (seen === undefined) throw new Error('it does not look');
  return seen;
};
const phaseIs = (host: number, phase: string): Promise<void> => until(`${NAMES[host]} is ${phase}`, async () => (await isolation(host)).phase === phase, WAIT_MS);
const isUp = async (port: string): Promise<boolean> => /[<,]UP[,>]/.test(await run('nsenter', [`--net=/run/netns/${bed.namespace('h1')}`, 'ip', 'link', 'show', port]));
const metric = async (host: number, line: RegExp): Promise<string> => {
  const text = String((await daemon(host).api.call('GET', '/metrics')).body);
  return line.exec(text)?.[1] ?? 'none';
};

async function epoch(generation: number, e: number, hosts: readonly number[]): Promise<void> {
  for (const host of hosts) expect((await say(host, 'POST', '/cut', { generation, epoch: e })).code).toBeUndefined();
  for (const host of hosts) expect((await say(host, 'POST', '/ack', { generation, epoch: e })).code).toBeUndefined();
}

describe.skipIf(UNPRIVILEGED)('a group on three hosts', () => {
  beforeAll(() => bed.build(), 90_000);
  afterAll(() => bed.close());

  test('applied and protected on one, all have it; members reach each other, the outside waits for all acks', async () => {
    expect((await insist(0, 'PUT', '', bed.file(NAMES))).phase).toBe('idle');
    await everybody(({ phase }) => phase === 'idle');
    expect(['protected', 'already_protected'], 'said twice where the first answer was late').toContain(await insist(1, 'POST', '/protect', {}).then(({ phase, code }) => phase ?? code));
    await everybody(({ phase, generation }) => phase === 'protected' && generation === 1);
    expect(await bed.ping('m1', '10.88.0.3'), 'm1 to m3, over two uplinks').toBe(3);
    expect(await bed.ping('m1', '10.88.0.100'), 'm1 to the outside').toBe(0);
    await until('what m1 said to the outside is counted as held', async () => ((await state(0)).held?.frames ?? 0) > 0);
    for (const host of [0, 1, 2]) await say(host, 'POST', '/cut', { generation: 1, epoch: 1 });
    for (const host of [0, 1]) await say(host, 'POST', '/ack', { generation: 1, epoch: 1 });
    await sleep(300);
    expect(await Promise.all([0, 1, 2].map(async (host) => (await state(host)).committed)), 'h3 has not acked').toEqual([0, 0, 0]);
    await until('h3 is seen to be late', async () => {
      const hosts = (await state(0)).hosts ?? [];
      return hosts.length === 3 && hosts.every(({ host, acked, late }) => (host === 'h3' ? late && acked === 0 : !late && acked === 1));
    }, 20_000);
    expect((await say(0, 'POST', '/commit', { generation: 1, epoch: 1 })).code).toBe('not_acked');
    expect((await say(0, 'POST', '/rollback', { generation: 1, epoch: 0 })).code).toBe('bad_request');
    await say(2, 'POST', '/ack', { generation: 1, epoch: 1 });
    await everybody(({ committed, released }) => committed === 1 && released === 1);
  });

  test('a host cut off from the ledger releases nothing, says it is not ready, and goes on when it is back', async () => {
    await bed.cutOff('h3', true);
    try {
      await epoch(1, 2, [0, 1, 2]);
      await sleep(1000);
      expect((await state(2)).committed, 'h3 hears nobody').toBe(1);
      expect((await state(0)).committed, 'nobody heard h3').toBe(1);
      await until('h3 is not ready', async () => (await bed.daemons[2]?.api.call('GET', '/readyz'))?.status !== 200, 10_000);
      expect((await say(2, 'POST', '/takeover', { generation: 2, epoch: 1 })).code).toBe('ledger_down');
    } finally {
      await bed.cutOff('h3', false);
    }
    await everybody(({ committed }) => committed === 2);
  }, 60_000);

  test('h1 is paused, its member taken over by h2; everybody else opens by its own engine; h1 wakes and is fenced', async () => {
    await epoch(1, 3, [0, 1, 2]);
    await everybody(({ committed }) => committed === 3);
    await say(0, 'POST', '/cut', { generation: 1, epoch: 4 });
    bed.daemons[0]?.signal('SIGSTOP');
    const { members } = bed.file(['h3', 'h2', 'h3']);
    const moved = { members: members.map((member, i) => (i === 0 ? { ...member, port: 'spare' } : member)) };
    expect((await insist(1, 'POST', '/takeover', { generation: 2, epoch: 4, ...moved })).code).toBe('not_acked');
    expect((await insist(1, 'POST', '/takeover', { generation: 2, epoch: 2, ...moved })).code).toBe('epoch_out_of_order');
    const took = await insist(1, 'POST', '/takeover', { generation: 2, epoch: 3, ...moved });
    expect(took).toMatchObject({ generation: 2, phase: 'protected', committed: 3 });
    await everybody(({ phase }) => phase === 'fenced', [2]);
    expect((await say(2, 'POST', '/cut', { generation: 1, epoch: 4 })).code, 'the old engine').toBe('fenced');
    bed.daemons[0]?.signal('SIGCONT');
    await everybody(({ phase }) => phase === 'fenced', [0]);
    expect((await say(0, 'POST', '/ack', { generation: 1, epoch: 4 })).code).toBe('fenced');
    expect((await insist(0, 'POST', '/takeover', { generation: 2, epoch: 3 })).code, 'it has no members there').toBe('fenced');
    expect(await bed.ping('m1', '10.88.0.2'), 'the old m1 reaches nobody of the new generation').toBe(0);
    expect(await bed.ping('m1', '10.88.0.100'), 'nor the outside').toBe(0);
    expect(await say(0, 'POST', '/unprotect', { generation: 1, held: 'discard' })).toMatchObject({ phase: 'idle' });
  }, 60_000);

  test('a daemon that restarts finds its group again, in the ledger and in the journal', async () => {
    await bed.daemons[1]?.kill();
    await bed.daemons[1]?.start();
    expect(await state(1)).toMatchObject({ phase: 'protected', generation: 2, committed: 3 });
  }, 60_000);

  test('both families are heard; one that answers is enough', async () => {
    for (const host of NAMES.keys()) await phaseIs(host, 'reachable');
    await until('both have answered', async () => (await isolation(1)).addresses.every(({ answeredMsAgo }) => answeredMsAgo !== undefined), WAIT_MS);
    await bed.outside('addr del 10.88.0.100/24 dev eth0');
    // A slow moment makes it suspect for a while; were one silent address enough, it would be isolated and stay so.
    await until('the first is silent, and by the other it is reachable', async () => {
      const { phase, addresses: [first] } = await isolation(1);
      return (first?.answeredMsAgo ?? 0) > 1300 && phase === 'reachable';
    }, WAIT_MS);
    await bed.outside('addr add 10.88.0.100/24 dev eth0');
  }, 60_000);

  test('no address answers: isolated, takeover refused; one answers again: accepted', async () => {
    await bed.cable('h2', false);
    await phaseIs(1, 'isolated');
    const { code, message } = await say(1, 'POST', '/takeover', { generation: 3, epoch: 3 });
    expect(code).toBe('isolated');
    expect(message).toMatch(/^host h2 is isolated, no answer from 10\.88\.0\.100, fd88::100: take over on a host that is not/);
    const ready = await daemon(1).api.call('GET', '/readyz');
    expect(ready.status).toBe(503);
    expect(JSON.stringify(ready.body)).toContain('host h2 is isolated');
    expect(await metric(1, /^sluice_isolated\{policy="hold"\} (.*)$/m)).toBe('1');
    expect((await figures(1)).groups[0]?.phase, 'it goes on holding').toBe('protected');
    await bed.cable('h2', true);
    await phaseIs(1, 'reachable');
    expect((await insist(1, 'POST', '/takeover', { generation: 3, epoch: 3 })).phase).toBe('protected');
  }, 90_000);

  test('policy close: the members are not even heard by each other, until one answers again', async () => {
    const two = { commit: 'acks', wire: { vlan: 34 }, members: [bed.file(['h1']).members[0], bed.fourth()] };
    await until('a group of h1 is applied', async () => (await daemon(0).api.call('PUT', '/v1/groups/two', two)).status < 300, WAIT_MS);
    await until('it is protected', async () => JSON.stringify((await daemon(0).api.call('POST', '/v1/groups/two/protect', {})).body).includes('protected'), WAIT_MS);
    await until('m1 reaches m4, both on h1', async () => (await bed.ping('m1', '10.88.0.4')) === 3, WAIT_MS);
    await bed.cable('h1', false);
    await phaseIs(0, 'isolated');
    await until('the ports are closed', async () => (await isolation(0)).closedPorts.length === 2, WAIT_MS);
    expect(await isUp('tap')).toBe(false);
    expect(await isUp('tap2')).toBe(false);
    expect(await bed.ping('m1', '10.88.0.4')).toBe(0);
    await run('nsenter', [`--net=/run/netns/${bed.namespace('h1')}`, 'ip', 'link', 'set', 'tap', 'up']);
    await until('it is closed again', async () => !(await isUp('tap')), WAIT_MS);
    await daemon(0).kill();
    expect(await isUp('tap'), 'a dead daemon opens nothing').toBe(false);
    await daemon(0).start('live');
    await phaseIs(0, 'isolated');
    expect(await isUp('tap'), 'nor does its next life').toBe(false);
    await bed.cable('h1', true);
    await phaseIs(0, 'reachable');
    await until('the ports are open', async () => (await isUp('tap')) && (await isUp('tap2')) && (await isolation(0)).closedPorts.length === 0, WAIT_MS);
    await until('m1 reaches m4 again', async () => (await bed.ping('m1', '10.88.0.4')) === 3, WAIT_MS);
  }, 120_000);

  test('the probing process dies: nothing is concluded from its silence, and another goes on', async () => {
    await phaseIs(1, 'reachable');
    const [before] = daemon(1).children();
    if (before === undefined) throw new Error('it has no prober');
    process.kill(before, 'SIGKILL');
    await until('another probes', async () => {
      const { phase, addresses: asked } = await isolation(1);
      expect(phase).not.toBe('isolated');
      const [now] = daemon(1).children();
      return now !== undefined && now !== before && asked.some(({ answeredMsAgo }) => (answeredMsAgo ?? 1e9) < 500);
    }, WAIT_MS);
  }, 60_000);

  test('a peer that is paused is lost, then back: events, figures, metrics', async () => {
    const heard: string[] = [];
    const client = new SluiceClient({ socket: daemon(0).socket });
    const quit = new AbortController();
    let isConnected = false;
    const events = (async () => {
      for await (const { event } of client.events({ signal: quit.signal, onConnected: () => (isConnected = true) })) if (event.type.startsWith('peer-')) heard.push(`${event.type} ${event.host}`);
    })();
    await until('events come', () => isConnected, WAIT_MS);
    daemon(2).signal('SIGSTOP');
    try {
      await until('h3 is lost', () => heard.includes('peer-lost h3'), WAIT_MS);
      await until('h2 sees it too', async () => (await figures(1)).across?.peers.find(({ host }) => host === 'h3')?.phase === 'lost', WAIT_MS);
      expect((await figures(1)).groups[0]?.hosts?.find(({ host }) => host === 'h3')).toMatchObject({ behind: 0, alive: false });
      expect(await metric(1, /^sluice_peer_up\{host="h3"\} (.*)$/m)).toBe('0');
      expect(await metric(1, /^sluice_host_acked_epoch\{group="web",host="h3"\} (.*)$/m)).toBe('3');
    } finally {
      daemon(2).signal('SIGCONT');
    }
    await until('h3 is back', () => heard.includes('peer-back h3'), WAIT_MS);
    quit.abort();
    await events;
    await client.close();
  }, 90_000);

  test('a second daemon with h2\'s name is refused in one line', async () => {
    const directory = join(bed.directory, 'twin');
    mkdirSync(directory);
    const twin = new Daemon({ namespace: bed.namespace('h3'), directory, pins: `${bed.pins('h3')}-twin`, across: { host: 'h2', uplink: 'uplink', endpoints: bed.etcd.endpoints } });
    try {
      // where etcd is late at its start it is refused by the next heartbeat, and has been live meanwhile
      const refusal = await twin.start('live').catch((error: unknown) => String(error));
      await until('it is refused', () => /the host name h2 is in use in the ledger by another sluiced/.test(`${refusal ?? ''} ${twin.log()}`), WAIT_MS);
    } finally {
      await twin.close();
    }
  }, 90_000);
});
