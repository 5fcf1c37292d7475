/**
 * A group across hosts, measured: what its members' traffic costs on the wire, and how long a commit
 * takes. Hosts are namespaces of one machine, each with its own sluiced; on
 * two cores they stand in each other's way, so the last figure is of the machine, not of a network.
 *
 *   wire      two hosts, and two without a gate, streams over both at once (beside.ts)
 *   commit    the last host's ack is called ─► etcd ─► all hear of it ─► frames leave: first, and of all hosts
 */
import type { GroupAnswer } from '../bed/api.ts';
import { Cluster } from '../bed/cluster.ts';
import { HostsBed } from '../bed/hosts.ts';
import { sleep, until } from '../bed/commands.ts';
import { nowUs } from '../bed/libc.ts';
import type { PacketPort } from '../bed/packet-port.ts';
import { parseProbe, probeFlow } from '../bed/probe.ts';
import { median, quantile } from '../bed/stats.ts';
import { FarmGroup } from '../hosts/farm.ts';
import type { Lap, Reading, Scenario } from '../scenario.ts';
import { FLOOR, NOTE, VARIANTS, argumentsOf, beside, sentBytes, shareOf, type Road } from './beside.ts';
import { manyGroups } from './hosts-many.ts';

const SHAPE = { hosts: 2, members: [0, 1].map((host) => ({ kind: 'veth' as const, host })) };
const VNI = 7;

const wire = (way: 'tags' | 'VXLAN'): Scenario => {
  const name = `TCP between members on two hosts, ${way === 'tags' ? '' : 'by VXLAN, '}beside the plain bridges`;
  const shape = { ...SHAPE, ...(way === 'tags' ? {} : { routed: true }) };
  return {
    name, section: 'hosts', variants: VARIANTS, baseline: false, warmUpLap: false, lapsMax: way === 'tags' ? 2 : 1, note: NOTE, shown: way === 'tags',
    topology: `two hosts, each with a bridge, an uplink and a sluiced, on one switch${way === 'tags' ? '' : ', a router between them for VXLAN'}; one member (veth into a namespace) each; one etcd; and the same hosts once more without sluiced`,
    arguments: `${way === 'tags' ? 'tagged on the uplinks' : 'by VXLAN over the router'} beside plain bridges over the switch: ${argumentsOf({})}`, quantities: shareOf(name, way === 'tags' ? FLOOR : undefined),
    open: async (context) => {
      const plain = await HostsBed.create(shape);
      const cluster = await Cluster.create({ ...shape, etcdNodes: 1 }).catch(async (error: unknown) => {
        await plain.close();
        throw error;
      });
      const road = (bed: HostsBed): Road =>
        ({ id: bed.id, from: bed.member(0), to: bed.member(1), sent: (to) => sentBytes(bed.host(to === bed.member(0) ? 0 : 1), to.port) });
      let group: FarmGroup | undefined;
      return {
        lap: (lap) => beside(context, lap, {
          gated: road(cluster.bed), plain: road(plain), load: {},
          protect: async () => { // applied anew: the daemon closes a connection that a control run leaves idle
            group = await FarmGroup.apply(cluster, { name: 'g', members: [0, 1], vlan: 100, ...(way === 'tags' ? {} : { vni: VNI }) });
            await group.protect();
          },
          unprotect: async () => {
            await group?.unprotect();
            await group?.forget();
          },
        }),
        close: async () => {
          group?.close();
          await cluster.close();
          await plain.close();
        },
      };
    },
  };
};

const HOSTS_MAX = 8;
const ALONE = 'own ledger';
const COMMITS = [{ name: ALONE, hosts: 1 }, ...[1, 2, 3, HOSTS_MAX].map((hosts) => ({ name: `${hosts} ${hosts === 1 ? 'host' : 'hosts'}`, hosts }))];
const EPOCHS_MAX = 300;
const SETTLE_MS = 5;
const OUT_MS_MAX = 30_000;

interface Left {
  readonly firstMs: number;
  readonly allMs: number;
}

/** One epoch with a frame of each host in it: from the last host's ack until they are outside. */
async function commitOnce({ bed }: Cluster, group: FarmGroup, eye: PacketPort): Promise<Left> {
  const epoch = group.open;
  for (const i of group.members) bed.tap(i).send(probeFlow(bed.member(i).address, bed.outsider.address, i)(epoch));
  await sleep(SETTLE_MS);
  await group.cutAll();
  const last = epoch % group.hosts; // each in its turn
  const others = group.members.flatMap((_, host) => (host === last ? [] : [host]));
  await Promise.all(others.map((host) => group.ack(host)));
  await until('the other hosts\' acks have come', async () => acksIn(await group.state(last), epoch) >= others.length, OUT_MS_MAX);
  const outUs: number[] = [];
  eye.drain(() => undefined);
  const beganUs = nowUs();
  const answered = group.ack(last);
  await until('all frames are outside', () => {
    eye.drain((frame, atUs) => void (parseProbe(frame)?.seq === epoch && outUs.push(atUs)));
    return outUs.length >= group.hosts;
  }, OUT_MS_MAX);
  await answered;
  return { firstMs: (Math.min(...outUs) - beganUs) / 1e3, allMs: (Math.max(...outUs) - beganUs) / 1e3 };
}

const acksIn = (state: GroupAnswer, epoch: number): number =>
  'hosts' in state && Array.isArray(state.hosts) ? state.hosts.filter((one: { acked?: number }) => (one.acked ?? 0) >= epoch).length : 0;

async function commits(cluster: Cluster, eye: PacketPort, { name, hosts }: (typeof COMMITS)[number], { number, seconds }: Lap): Promise<Reading> {
  const group = await FarmGroup.apply(cluster, { name: `c${hosts}-${number}${name === ALONE ? 'a' : ''}`, members: Array.from({ length: hosts }, (_, i) => i), vlan: 100 }, name === ALONE);
  await group.protect();
  try {
    const [first, all]: [number[], number[]] = [[], []];
    const endUs = nowUs() + seconds * 1e6;
    while (nowUs() < endUs && first.length < EPOCHS_MAX) {
      const { firstMs, allMs } = await commitOnce(cluster, group, eye);
      first.push(firstMs);
      all.push(allMs);
    }
    return {
      values: { first50: median(first), first99: quantile(first, 0.99), all50: median(all), all99: quantile(all, 0.99) },
      series: { 'first frame, ms': first, 'all hosts, ms': all },
    };
  } finally {
    await group.unprotect();
    await group.forget();
  }
}

const commit: Scenario = {
  name: 'commit across hosts', section: 'hosts', warmUpLap: true, lapsMax: 2, baseline: false,
  variants: COMMITS.map(({ name, hosts }) => (name === ALONE ? { name } : { name, x: hosts })), xLabel: 'hosts',
  topology: `${HOSTS_MAX} hosts on one machine, each with a bridge, an uplink and a sluiced; one tap each; an etcd of three nodes`,
  arguments: 'a frame of each host in each epoch; all other hosts have acked; the last one\'s ack to the first frame outside, and to the last host\'s',
  quantities: [
    { key: 'first50', name: 'last ack to first frame outside, p50', unit: 'ms', lowerIsBetter: true },
    { key: 'first99', name: 'last ack to first frame outside, p99', unit: 'ms', lowerIsBetter: true },
    { key: 'all50', name: 'last ack to all hosts\' frames outside, p50', unit: 'ms', lowerIsBetter: true },
    { key: 'all99', name: 'last ack to all hosts\' frames outside, p99', unit: 'ms', lowerIsBetter: true },
  ],
  note: `'${ALONE}' is one host without etcd; with it, a commit is an etcd transaction more, and its way back by the watch.`,
  open: async () => {
    const cluster = await Cluster.create({ hosts: HOSTS_MAX, members: Array.from({ length: HOSTS_MAX }, (_, host) => ({ kind: 'tap', host })), etcdNodes: 3 });
    const eye = cluster.bed.outside();
    return {
      lap: (lap) => {
        const shape = COMMITS.find(({ name }) => name === lap.variant);
        return shape === undefined ? Promise.reject(new Error(`no shape ${lap.variant}`)) : commits(cluster, eye, shape, lap);
      },
      close: () => cluster.close(),
    };
  },
};

export const hosts: readonly Scenario[] = [wire('tags'), wire('VXLAN'), commit, ...manyGroups];
