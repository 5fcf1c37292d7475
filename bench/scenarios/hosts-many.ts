/**
 * Many groups across hosts with one etcd: each group has a member on each host and is cut and acked 20
 * times a second, all groups' epochs spread evenly over the interval.
 *
 *   every 50 ms and group:  cut at h1 h2 h3 ── STORE_MS ── ack at h1 h2 h3
 *                           └ a group that is late begins its next epoch at once, and never two at a time;
 *                             it makes up for at most one interval
 *   alone                   each group has an engine of its own, a request a command
 *   together                one engine has them all: what is due of them is one request to a host (herd.ts)
 *
 *   epochs     committed on h1, all groups together, a second
 *   commit     of SEEN groups, whose member on h1 sends a frame in each epoch: from the group's last ack
 *              call until that frame is outside
 *   etcd       entries in its log a second beside acks a second: how many acks share a transaction; its CPU
 *   idle       what the machine's cores had left. Near 0 the commit's time is that of a queue for the cores
 *
 * All groups are driven for WARM_ALL_MS first, half of it alone and half together: a daemon's code is
 * compiled while it runs, and the variant that comes first would pay for that.
 *
 * One of three hosts whole: h2 and h3 are played by their ledgers alone (hosts/played.ts), which ack with
 * h1. What h1 costs, and what etcd does, is as with three hosts, and the cores are h1's, etcd's and the
 * engine's, as on a machine of its own.
 *
 * Variant `one late`: one more group, which the last host never acks. Nobody waits for it.
 * 200 groups are by name only: to protect them all takes minutes, since the kernel attaches a program
 * in some 10 ms and here three hosts share one kernel's lock.
 */
import { Cluster } from '../bed/cluster.ts';
import { sleep } from '../bed/commands.ts';
import { cpuUs, idleUs } from '../bed/cpu.ts';
import { nowUs } from '../bed/libc.ts';
import { parseProbe, probeFlow } from '../bed/probe.ts';
import { quantile } from '../bed/stats.ts';
import { FarmGroup } from '../hosts/farm.ts';
import { Herd } from '../hosts/herd.ts';
import { PlayedHosts } from '../hosts/played.ts';
import type { PacketPort } from '../bed/packet-port.ts';
import type { Context, Lap, Reading, Scenario } from '../scenario.ts';

const SEEN = 10;
const INTERVAL_MS = 50;
const STORE_MS = 8;
const WARM_ALL_MS = 10_000;
const WARM_UP_MS = 1500;
const MEASURED_MS = 6000;
const AT_ONCE = 5;

interface Variant {
  readonly name: string;
  readonly groups: number;
  readonly hasLate?: boolean;
  readonly isTogether?: boolean;
}
interface Size {
  readonly hosts: number;
  readonly groups: number;
  /** Hosts of the groups beside those of the bed. */
  readonly played?: readonly string[];
}
interface Many {
  readonly hosts: number;
  readonly cluster: Cluster;
  readonly groups: readonly FarmGroup[];
  readonly herd: Herd;
  readonly eye: PacketPort;
  readonly played: PlayedHosts | undefined;
}
interface Run {
  isOver: boolean;
  readonly groups: number;
  /** `group/epoch` -> when its last ack was called. */
  readonly ackedUs: Map<string, number>;
}

async function openMany({ hosts, groups: count, played: names }: Size): Promise<Many> {
  const cluster = await Cluster.create({ hosts, members: Array.from({ length: count * hosts }, (_, i) => ({ kind: 'tap', host: i % hosts })), etcdNodes: 1 });
  let played: PlayedHosts | undefined;
  try {
    const groups: FarmGroup[] = [];
    for (let from = 0; from < count; from += AT_ONCE) {
      groups.push(...await Promise.all(Array.from({ length: AT_ONCE }, async (_, k) => {
        const g = from + k;
        const group = await FarmGroup.apply(cluster, { name: `g${g}`, members: Array.from({ length: hosts }, (__, host) => g * hosts + host), vlan: 100 + g, ...(names === undefined ? {} : { elsewhere: names }) });
        await group.protect();
        return group;
      })));
    }
    played = names === undefined ? undefined : new PlayedHosts(cluster, names);
    await played?.know(count);
    const many = { hosts, cluster, groups, herd: await Herd.open(cluster.daemons), eye: cluster.bed.outside(), played };
    await warm(many);
    return many;
  } catch (error) {
    await played?.close();
    await cluster.close();
    throw error;
  }
}

async function warm(many: Many): Promise<void> {
  const all = Array.from({ length: many.hosts }, (_, host) => host);
  for (const isTogether of [false, true]) {
    const run: Run = { isOver: false, groups: many.groups.length, ackedUs: new Map() };
    const engines = isTogether ? [together(many, run, many.groups, 0)] : many.groups.map((group, g) => engine(many, run, g, group, false, all));
    await sleep(WARM_ALL_MS / 2);
    run.isOver = true;
    await Promise.all(engines);
  }
}

/** One engine of all groups, which says what is due of them in one request to each host. */
function together({ herd, played, cluster: { bed } }: Many, run: Run, groups: readonly FarmGroup[], seen: number): Promise<void> {
  const step = Math.max(1, Math.floor(groups.length / Math.max(1, seen)));
  const index = new Map(groups.map((group, g) => [group, g]));
  const sends = new Map(groups.flatMap((group, g) => {
    const [mine = 0] = group.members;
    return g % step === 0 && seen > 0 ? [[group, { tap: bed.tap(mine), frame: probeFlow(bed.member(mine).address, bed.outsider.address, g) }]] : [];
  }));
  return herd.drive(groups, {
    intervalMs: INTERVAL_MS, storeMs: STORE_MS, isOver: () => run.isOver,
    beforeCut: (group) => {
      const send = sends.get(group);
      send?.tap.send(send.frame(group.open));
    },
    beforeAck: (group) => {
      played?.ack(group.name, group.open - 1);
      if (sends.has(group)) run.ackedUs.set(`${index.get(group)}/${group.open - 1}`, nowUs());
    },
  });
}

/** One group's engine, until the run is over. */
async function engine({ played, cluster: { bed } }: Many, run: Run, g: number, group: FarmGroup, isSeen: boolean, hosts: readonly number[]): Promise<void> {
  const [mine = 0] = group.members;
  const frame = probeFlow(bed.member(mine).address, bed.outsider.address, g);
  let nextMs = performance.now() + (g * INTERVAL_MS) / run.groups;
  while (!run.isOver) {
    const restMs = nextMs - performance.now();
    if (restMs > 0) await sleep(restMs);
    nextMs = Math.max(nextMs, performance.now() - 2 * INTERVAL_MS) + INTERVAL_MS;
    if (isSeen) bed.tap(mine).send(frame(group.open));
    await group.cutAll();
    await sleep(STORE_MS);
    if (isSeen) run.ackedUs.set(`${g}/${group.open - 1}`, nowUs());
    played?.ack(group.name, group.open - 1);
    await Promise.all(hosts.map((host) => group.ack(host)));
  }
}

/** What everybody has used and done so far. */
async function account({ cluster, played }: Many, groups: readonly FarmGroup[]) {
  const { daemons, etcd } = cluster;
  const { api } = cluster.daemon(0); // a connection of its own: the groups' are the engines'
  const committed = (await Promise.all(groups.map(({ name }) => api.group('GET', `/v1/groups/${name}`)))).map((state) => state.committed);
  const entries = await etcd.entries();
  const { user, system } = process.cpuUsage();
  return { committed, entries, atUs: nowUs(), idleUs: idleUs(), etcdUs: etcd.cpuUs(), clientUs: user + system, playedUs: played?.cpuUs() ?? 0, daemonUs: daemons.map(({ pid }) => cpuUs(pid)) };
}

async function measured(many: Many, { groups: count, hasLate = false, isTogether = false }: Variant, context: Context, lap: Lap): Promise<Reading> {
  const all = Array.from({ length: many.hosts }, (_, host) => host);
  const groups = many.groups.slice(0, count);
  const run: Run = { isOver: false, groups: count, ackedUs: new Map() };
  const step = Math.max(1, Math.floor(count / SEEN));
  const engines = isTogether ? [together(many, run, groups, SEEN)] : groups.map((group, g) => engine(many, run, g, group, g % step === 0, all));
  const late = hasLate ? many.groups[count] : undefined;
  const lateAt = (await late?.state(0))?.committed;
  if (late !== undefined) engines.push(engine(many, run, count, late, false, all.slice(0, -1)));
  for (const one of engines) one.catch(() => (run.isOver = true)); // said at the end
  const delayMs: number[] = [];
  const eye = setInterval(() => many.eye.drain((bytes, atUs) => {
    const probe = parseProbe(bytes);
    const ackedUs = probe === undefined ? undefined : run.ackedUs.get(`${probe.flow}/${probe.seq}`);
    if (ackedUs !== undefined) delayMs.push((atUs - ackedUs) / 1e3);
  }), 2);
  try {
    await sleep(WARM_UP_MS);
    delayMs.length = 0;
    const before = await account(many, groups);
    await sleep(MEASURED_MS);
    const after = await account(many, groups);
    const seconds = (after.atUs - before.atUs) / 1e6;
    const epochs = after.committed.reduce((sum, committed, g) => sum + committed - (before.committed[g] ?? 0), 0) / seconds;
    const share = (us: number): number => us / 1e6 / seconds;
    const slowest = Math.min(...after.committed.map((committed, g) => committed - (before.committed[g] ?? 0))) / seconds;
    context.raw(lap, 'account.json', JSON.stringify({ before, after, delayMs }));
    if (late !== undefined && (await many.cluster.daemon(0).api.group('GET', `/v1/groups/${late.name}`)).committed !== lateAt) throw new Error('the group that the last host never acked was committed');
    return {
      values: {
        epochs, slowest, delay50: quantile(delayMs, 0.5), delay99: quantile(delayMs, 0.99), acks: epochs * (many.hosts + (many.played?.names.length ?? 0)),
        entries: (after.entries - before.entries) / seconds, etcdCpu: share(after.etcdUs - before.etcdUs),
        ...(many.played === undefined ? {} : { playedCpu: share(after.playedUs - before.playedUs) }),
        daemonCpu: share(after.daemonUs.reduce((sum, us, host) => sum + us - (before.daemonUs[host] ?? 0), 0)), clientCpu: share(after.clientUs - before.clientUs), idle: share(after.idleUs - before.idleUs),
      },
      series: { 'commit, ms': delayMs },
    };
  } finally {
    run.isOver = true;
    await Promise.all(engines).finally(() => clearInterval(eye));
  }
}

const WANTED = 1000 / INTERVAL_MS;

/** `at`: what its figures' names end with. */
function scenario(name: string, size: Size, variants: readonly Variant[], at = ''): Scenario {
  const byName = at !== '';
  return {
    name, section: 'hosts', baseline: false, warmUpLap: false, lapsMax: 1, byName,
    variants: variants.map((one) => ({ name: one.name })),
    topology: `${size.hosts === 1 ? 'one host' : `${size.hosts} hosts`} on one machine, each with a bridge, an uplink and a sluiced${size.played === undefined ? '' : `; ${size.played.join(' and ')} by their ledgers alone`}; ${size.groups} groups with a tap on each host; one etcd`,
    arguments: `each group ${WANTED} epochs a second, wanted; ${MEASURED_MS / 1e3} s after a warm-up; engines, daemons and etcd share this machine's cores; together: one engine, a request a host for all that is due`,
    quantities: [
      { key: 'epochs', name: `epochs committed a second, all groups${at}`, unit: 'epochs/s' },
      { key: 'slowest', name: `epochs committed a second, the slowest group${at}`, unit: 'epochs/s' },
      { key: 'delay50', name: `many groups: last ack to first frame outside, p50${at}`, unit: 'ms', lowerIsBetter: true },
      { key: 'delay99', name: `many groups: last ack to first frame outside, p99${at}`, unit: 'ms', lowerIsBetter: true },
      { key: 'acks', name: `acks in the ledger${at}`, unit: '/s' },
      { key: 'entries', name: `entries in etcd's log${at}`, unit: '/s', lowerIsBetter: true },
      { key: 'etcdCpu', name: `CPU of etcd${at}`, unit: 'cores', lowerIsBetter: true },
      { key: 'daemonCpu', name: `CPU of all sluiced${at}`, unit: 'cores', lowerIsBetter: true },
      ...(size.played === undefined ? [] : [{ key: 'playedCpu', name: `CPU of the ledgers that play the other hosts${at}`, unit: 'cores', lowerIsBetter: true }]),
      { key: 'clientCpu', name: `CPU of the engines${at}`, unit: 'cores', lowerIsBetter: true },
      { key: 'idle', name: `left of this machine's cores${at}`, unit: 'cores' },
    ],
    open: async (context) => {
      const many = await openMany(size);
      return {
        lap: (lap) => {
          const variant = variants.find((one) => one.name === lap.variant);
          return variant === undefined ? Promise.reject(new Error(`no variant ${lap.variant}`)) : measured(many, variant, context, lap);
        },
        close: async () => {
          for (const group of many.groups) group.close();
          many.herd.close();
          await many.played?.close();
          await many.cluster.close();
        },
      };
    },
  };
}
const TWO_HUNDRED: readonly Variant[] = [{ name: 'alone', groups: 200 }, { name: 'together', groups: 200, isTogether: true }];

export const manyGroups: readonly Scenario[] = [
  scenario('many groups across hosts', { hosts: 3, groups: 50 }, [
    { name: '3 groups', groups: 3 },
    { name: '10 groups', groups: 10 },
    { name: '10 groups, one late', groups: 10, hasLate: true },
    { name: '50 groups', groups: 50 },
    { name: '50 groups, together', groups: 50, isTogether: true },
  ]),
  scenario('200 groups on one host', { hosts: 1, groups: 200 }, TWO_HUNDRED, ' (200 groups on one host)'),
  scenario('200 groups, one of three hosts whole', { hosts: 1, groups: 200, played: ['h2', 'h3'] }, TWO_HUNDRED, ' (200 groups, one of three hosts whole)'),
  scenario('200 groups across hosts', { hosts: 3, groups: 200 }, TWO_HUNDRED, ' (200 groups on three hosts)'),
];
