/**
 * After a takeover the network knows where the members are: a switch that had them elsewhere, and
 * neighbours that had the address elsewhere, by IPv4 and IPv6. The members themselves hear nothing of it.
 *
 *   tap m1 ─┐                          ┌─ eth0 ═ br1 (has addresses: the neighbour)
 *           ├ br0 (sluiced) ─ uplink ══╡        └─ old ═ older: where the members were before
 *   tap m2 ─┘                          └ outsider's namespace
 */
import { describe, expect, it } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { ipBatch, namespacePath, runIn, until } from '../../bench/bed/commands.ts';
import { PacketPort } from '../../bench/bed/packet-port.ts';
import { macBytes } from '../../bench/bed/probe.ts';
import { UNPRIVILEGED } from './privilege.ts';

const ELSEWHERE = '02:de:ad:00:00:01';
const DEADLINE_MS = 20_000;
const ADDRESSES = [['10.81.0.1', 'fd81::1'], ['10.81.0.2', 'fd81::2']] as const;
const VLAN_FRAME_BYTES = 4;

interface Neighbour {
  readonly dst: string;
  readonly lladdr?: string;
}
interface Forwarding {
  readonly mac: string;
  readonly ifname: string;
  readonly vlan?: number;
}

describe.skipIf(UNPRIVILEGED !== undefined)('after a takeover', () => {
  it('switches and neighbours know the members\' places, by IPv4 and IPv6, and members hear none of it', async () => {
    const bed = await Bed.create({ members: ['tap', 'tap'] });
    try {
      const outside = bed.outsider.namespace ?? '';
      await bed.daemon().start('live');
      await makeNeighbour(outside);
      const members = bed.members.map(({ name, port, mac }, i) => ({ name, port, mac, addresses: ADDRESSES[i] }));
      await bed.daemon().api.must('PUT', '/v1/groups/g', { members });
      await bed.daemon().api.must('POST', '/v1/groups/g/protect', { generation: 1 });
      await knownElsewhere(outside, bed);
      const heard = bed.members.map(() => new Set<string>());
      const listen = (): void => bed.members.forEach((_, i) => bed.tap(i).drain((frame) => void heard[i]?.add(Buffer.from(frame).toString('hex', 6, 12))));
      listen();

      await bed.daemon().api.must('POST', '/v1/groups/g/takeover', { generation: 2, epoch: 0 });
      for (const [i, { mac }] of bed.members.entries()) {
        for (const address of ADDRESSES[i] ?? []) await until(`${address} is at ${mac}`, async () => (await neighbours(outside)).get(address) === mac, DEADLINE_MS);
        await until(`the switch has ${mac} at eth0`, async () => (await ports(outside)).get(mac) === 'eth0', DEADLINE_MS);
      }
      listen();
      for (const { mac } of bed.members) for (const each of heard) expect(each.has(mac.replaceAll(':', ''))).toBe(false);
    } finally {
      await bed.close();
    }
  }, 90_000);

  it.each(['ebpf', 'pcap'] as const)('it is said three times, tagged where the nic is: %s', async (plane) => {
    const bed = await Bed.create({ members: ['tap', 'tap'], plane });
    try {
      await bed.daemon().start('live');
      const outside = bed.outside();
      const [first, second] = [bed.member(0), bed.member(1)];
      const macs = [first, second].map(({ mac }) => mac.replaceAll(':', ''));
      const said: string[] = [];
      const listen = (): number => {
        outside.drain((bytes) => {
          const frame = Buffer.from(bytes);
          const source = frame.toString('hex', 6, 12);
          if (!macs.includes(source)) return; // the machine's own
          const at = frame.readUInt16BE(12) === 0x8100 ? VLAN_FRAME_BYTES : 0;
          said.push(`${source} ${at > 0 ? frame.readUInt16BE(14) : 0} ${frame.toString('hex', 12 + at, 14 + at)}`);
        });
        return said.length;
      };
      const members = [{ name: 'a', port: first.port, mac: first.mac, addresses: ['10.81.0.1'] }, { name: 'b', port: second.port, mac: second.mac, vlan: 7, addresses: ['fd81::2'] }];
      await bed.daemon().api.must('PUT', '/v1/groups/g', { members });
      await bed.daemon().api.must('POST', '/v1/groups/g/takeover', { generation: 2, epoch: 0 });
      await until('all was said three times', () => listen() >= 12, DEADLINE_MS);
      const [macA, macB] = macs;
      const once = [`${macA} 0 8035`, `${macB} 7 8035`, `${macA} 0 0806`, `${macB} 7 86dd`];
      expect([...said].sort()).toEqual([...once, ...once, ...once].sort()); // which kind comes first is nobody's promise
    } finally {
      await bed.close();
    }
  }, 90_000);
});

/** The outsider's eth0 becomes a port of a switch that has addresses itself and another port. */
async function makeNeighbour(namespace: string): Promise<void> {
  await ipBatch(namespace, [
    'link add br1 type bridge stp_state 0 forward_delay 0 mcast_snooping 0', 'addr flush dev eth0', 'link set eth0 master br1',
    'link add old type veth peer name older', 'link set old master br1 up', 'link set older up', 'link set br1 up',
  ]);
  await runIn(namespace, 'sh', ['-c', 'echo 0 > /proc/sys/net/ipv6/conf/br1/disable_ipv6; echo 0 > /proc/sys/net/ipv6/conf/br1/accept_dad']);
  await ipBatch(namespace, ['addr add 10.81.0.254/24 dev br1', 'addr add fd81::254/64 dev br1 nodad']);
}

/** The members' addresses at another MAC, and their MACs at the switch's other port. */
async function knownElsewhere(namespace: string, bed: Bed): Promise<void> {
  await ipBatch(namespace, ADDRESSES.flat().map((address) => `neigh replace ${address} lladdr ${ELSEWHERE} dev br1 nud stale`));
  const older = new PacketPort({ namespace: namespacePath(namespace), device: 'older' });
  try {
    const table = (): Promise<ReadonlyMap<string, string>> => ports(namespace);
    for (const { mac } of bed.members) {
      await until(`the switch has ${mac} at its other port`, async () => {
        older.send(Buffer.concat([Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Buffer.from(macBytes(mac)), Buffer.alloc(48, 0x88)]));
        return (await table()).get(mac) === 'old';
      }, DEADLINE_MS);
    }
  } finally {
    older.close();
  }
  const known = await neighbours(namespace);
  expect(ADDRESSES.flat().map((address) => known.get(address))).toEqual(ADDRESSES.flat().map(() => ELSEWHERE));
}

async function neighbours(namespace: string): Promise<ReadonlyMap<string, string>> {
  const shown = JSON.parse(await runIn(namespace, 'ip', ['-j', 'neigh', 'show', 'dev', 'br1'])) as Neighbour[];
  return new Map(shown.map(({ dst, lladdr }) => [dst, lladdr ?? '']));
}

async function ports(namespace: string): Promise<ReadonlyMap<string, string>> {
  const shown = JSON.parse(await runIn(namespace, 'bridge', ['-j', 'fdb', 'show', 'br', 'br1'])) as Forwarding[];
  return new Map(shown.map(({ mac, ifname }) => [mac, ifname]));
}
