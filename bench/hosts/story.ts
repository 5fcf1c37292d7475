/** What every story of a group on three hosts tells in the same way: its members, its end. */
import type { Cluster } from '../bed/cluster.ts';
import { sleep, until } from '../bed/commands.ts';
import type { Oracle } from '../bed/oracle.ts';
import type { HostsEngine } from './engine.ts';
import type { HostsTraffic, Speaker } from './traffic.ts';

export const GROUP = 'web';
export const VLAN = 100;
const ALL_MS = 60_000;

/** A member keeps name and address wherever it lives: `is` says which of the bed's it is, `tap` where it is now. */
export interface Seat {
  readonly is: number;
  readonly tap: number;
}

export function speakers({ bed }: Cluster, seats: readonly Seat[]): Speaker[] {
  return seats.map(({ is, tap }) => {
    const { name, address } = bed.member(is);
    return { name, address, host: bed.member(tap).host, tap: () => bed.tap(tap) };
  });
}
export function members({ bed }: Cluster, seats: readonly Seat[]): object[] {
  return seats.map(({ is, tap }) => ({ name: bed.member(is).name, mac: bed.member(is).mac, host: `h${bed.member(tap).host + 1}`, port: bed.member(tap).port }));
}
export const groupFile = (cluster: Cluster, seats: readonly Seat[]): object => ({ commit: 'acks', wire: { vlan: VLAN }, members: members(cluster, seats) });

/** Ends the traffic; everything of the living leaves. */
export async function finish(engine: HostsEngine, traffic: HostsTraffic, oracle: Oracle): Promise<void> {
  traffic.stop();
  await engine.stop();
  if (engine.failure !== undefined) throw engine.failure;
  const last = engine.open;
  await engine.epoch();
  for (const host of engine.hosts) await until('all is released', async () => (await engine.state(host)).released >= last, ALL_MS);
  for (let seen = -1; seen !== oracle.count().seen; await sleep(50)) {
    seen = oracle.count().seen;
    traffic.drain();
  }
  if (traffic.missed() > 0) throw new Error('the capture missed frames: the oracle was blind');
}
