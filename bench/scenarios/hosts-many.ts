/**
 * Many groups on three hosts with one etcd: each group has a member on each host and is cut and acked
 * 20 times a second, all groups' epochs spread evenly over the interval.
 *
 *   every 50 ms and group:  cut at h1 h2 h3 ── STORE_MS ── ack at h1 h2 h3
 *                           └ a group that is late begins its next epoch at once, and never two at a time
 *
 *   epochs     committed on h1, all groups together, a second
 *   commit     of SEEN groups, whose member on h1 sends a frame in each epoch: from the group's last ack
 *              call until that frame is outside
 *   etcd       entries in its log a second beside acks a second: how many acks share a transaction; its CPU
 *   idle       what the machine's cores had left. Near 0 the commit's time is that of a queue for the cores
 *
 * All groups are driven for WARM_ALL_MS first: a daemon's code is compiled while it runs, and the
 * variant that comes first would pay for that.
 *
 * Variant `one late`: one more group, which h3 never acks. Nobody waits for it.
 */
import { Cluster } from '../bed/cluster.ts';
import { sleep } from '../bed/commands.ts';
import { cpuUs, idleUs } from '../bed/cpu.ts';
import { nowUs } from '../bed/libc.ts';
import { parseProbe, probeFlow } from '../bed/probe.ts';
import { quantile } from '../bed/stats.ts';
import { FarmGroup } from '../hosts/farm.ts';
import type { PacketPort } from '../bed/packet-port.ts';
import type { Context, Lap, Reading, Scenario } from '../scenario.ts';

const HOSTS = 3;
const GROUPS_MAX = 50;
const SEEN = 10;
const INTERVAL_MS = 50;
const STORE_MS = 8;
const WARM_ALL_MS = 10_000;
const WARM_UP_MS = 1500;
const MEASURED_MS = 6000;
const AT_ONCE = 5;
const ALL = Array.from({ length: HOSTS }, (_, host) => host);
const VARIANTS = [
  { name: '3 groups', groups: 3, hasLate: false },
  { name: '10 groups', groups: 10, hasLate: false },
  { name: '10 groups, one late', groups: 10, hasLate: true },
  { name: '25 groups', groups: 25, hasLate: false },
  { name: `${GROUPS_MAX} groups`, groups: GROUPS_MAX, hasLate: false },
] as const;

interface Many {
  readonly cluster: Cluster;
  readonly groups: readonly FarmGroup[];
  readonly eye: PacketPort;
}
interface Run {
  isOver: boolean;
  readonly groups: number;
  /** `group/epoch` -> when its last ack was called. */
  readonly ackedUs: Map<string, number>;
}

async function openMany(): Promise<Many> {
  const cluster = await Cluster.create({ hosts: HOSTS, members: Array.from({ length: GROUPS_MAX * HOSTS }, (_, i) => ({ kind: 'tap', host: i % HOSTS })), etcdNodes: 1 });
  try {
    const groups: FarmGroup[] = [];
    for (let from = 0; from < GROUPS_MAX; from += AT_ONCE) {
      groups.push(...await Promise.all(Array.from({ length: AT_ONCE }, async (_, k) => {
        const g = from + k;
        const group = await FarmGroup.apply(cluster, { name: `g${g}`, members: Array.from({ length: HOSTS }, (__, host) => g * HOSTS + host), vlan: 100 + g });
        await group.protect();
        return group;
      })));
    }
    const many = { cluster, groups, eye: cluster.bed.outside() };
    await warm(many);
    return many;
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

async function warm(many: Many): Promise<void> {
  const run: Run = { isOver: false, groups: GROUPS_MAX, ackedUs: new Map() };
  const engines = many.groups.map((group, g) => engine(many, run, g, group, false, ALL));
  await sleep(WARM_ALL_MS);
  run.isOver = true;
  await Promise.all(engines);
}

/** One group's engine, until the run is over. */
async function engine({ cluster: { bed } }: Many, run: Run, g: number, group: FarmGroup, isSeen: boolean, hosts: readonly number[]): Promise<void> {
  const [mine = 0] = group.members;
  const frame = probeFlow(bed.member(mine).address, bed.outsider.address, g);
  let nextMs = performance.now() + (g * INTERVAL_MS) / run.groups;
  while (!run.isOver) {
    const restMs = nextMs - performance.now();
    if (restMs > 0) await sleep(restMs);
    nextMs = Math.max(nextMs + INTERVAL_MS, performance.now());
    if (isSeen) bed.tap(mine).send(frame(group.open));
    await group.cutAll();
    await sleep(STORE_MS);
    if (isSeen) run.ackedUs.set(`${g}/${group.open - 1}`, nowUs());
    await Promise.all(hosts.map((host) => group.ack(host)));
  }
}

/** What everybody has used and done so far. */
async function account({ cluster }: Many, groups: readonly FarmGroup[]) {
  const { daemons, etcd } = cluster;
  const { api } = cluster.daemon(0); // a connection of its own: the groups' are the engines'
  const committed = (await Promise.all(groups.map(({ name }) => api.group('GET', `/v1/groups/${name}`)))).map((state) => state.committed);
  const entries = await etcd.entries();
  const { user, system } = process.cpuUsage();
  return { committed, entries, atUs: nowUs(), idleUs: idleUs(), etcdUs: etcd.cpuUs(), clientUs: user + system, daemonUs: daemons.map(({ pid }) => cpuUs(pid)) };
}

async function measured(many: Many, { groups: count, hasLate }: (typeof VARIANTS)[number], context: Context, lap: Lap): Promise<Reading> {
  const groups = many.groups.slice(0, count);
  const run: Run = { isOver: false, groups: count, ackedUs: new Map() };
  const step = Math.max(1, Math.floor(count / SEEN));
  const engines = groups.map((group, g) => engine(many, run, g, group, g % step === 0, ALL));
  const late = hasLate ? many.groups[count] : undefined;
  const lateAt = (await late?.state(0))?.committed;
  if (late !== undefined) engines.push(engine(many, run, count, late, false, [0, 1]));
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
    if (late !== undefined && (await many.cluster.daemon(0).api.group('GET', `/v1/groups/${late.name}`)).committed !== lateAt) throw new Error('the group that h3 never acked was committed');
    return {
      values: {
        epochs, slowest, delay50: quantile(delayMs, 0.5), delay99: quantile(delayMs, 0.99), acks: epochs * HOSTS,
        entries: (after.entries - before.entries) / seconds, etcdCpu: share(after.etcdUs - before.etcdUs),
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

export const manyGroups: Scenario = {
  name: 'many groups across hosts', section: 'hosts', baseline: false, warmUpLap: false, lapsMax: 1,
  variants: VARIANTS.map(({ name }) => ({ name })),
  topology: `${HOSTS} hosts on one machine, each with a bridge, an uplink and a sluiced; ${GROUPS_MAX} groups with a tap on each host; one etcd`,
  arguments: `each group ${WANTED} epochs a second, wanted; ${MEASURED_MS / 1e3} s after a warm-up; engines, daemons and etcd share this machine's cores`,
  quantities: [
    { key: 'epochs', name: 'epochs committed a second, all groups', unit: 'epochs/s' },
    { key: 'slowest', name: 'epochs committed a second, the slowest group', unit: 'epochs/s' },
    { key: 'delay50', name: 'many groups: last ack to first frame outside, p50', unit: 'ms', lowerIsBetter: true },
    { key: 'delay99', name: 'many groups: last ack to first frame outside, p99', unit: 'ms', lowerIsBetter: true },
    { key: 'acks', name: 'acks in the ledger', unit: '/s' },
    { key: 'entries', name: 'entries in etcd\'s log', unit: '/s', lowerIsBetter: true },
    { key: 'etcdCpu', name: 'CPU of etcd', unit: 'cores', lowerIsBetter: true },
    { key: 'daemonCpu', name: 'CPU of the three sluiced', unit: 'cores', lowerIsBetter: true },
    { key: 'clientCpu', name: 'CPU of the engines', unit: 'cores', lowerIsBetter: true },
    { key: 'idle', name: 'left of this machine\'s cores', unit: 'cores' },
  ],
  open: async (context) => {
    const many = await openMany();
    return {
      lap: (lap) => {
        const variant = VARIANTS.find(({ name }) => name === lap.variant);
        return variant === undefined ? Promise.reject(new Error(`no variant ${lap.variant}`)) : measured(many, variant, context, lap);
      },
      close: async () => {
        for (const group of many.groups) group.close();
        await many.cluster.close();
      },
    };
  },
};
