/**
 * Cuts in the networks of a bed of hosts, made at the switch: what should cross is dropped in silence,
 * as by a wire that broke or a switch that lost its mind. The devices stay up, nobody is told.
 *
 *   ledger   a host's etcd node and sluiced, and all others' etcd       peers   a host's uplink and all others'
 *
 *   mute   nothing comes from the host       deaf   nothing reaches it       both
 *
 * The host's way to the outsider stays open when its peers are gone: what it lets out is seen.
 */
import { runIn } from '../bed/commands.ts';
import type { HostsBed } from '../bed/hosts.ts';

export type Network = 'ledger' | 'peers';
export type Direction = 'mute' | 'deaf' | 'both';
interface Cut {
  readonly network: Network;
  readonly host: number;
  readonly direction: Direction;
}

export class Cuts {
  readonly #bed: HostsBed;
  readonly #cuts = new Set<Cut>();

  constructor(bed: HostsBed) {
    this.#bed = bed;
  }

  /** Returns what mends it. */
  async make(network: Network, host: number, direction: Direction): Promise<() => Promise<void>> {
    const cut: Cut = { network, host, direction };
    this.#cuts.add(cut);
    await this.#write();
    return async () => {
      this.#cuts.delete(cut);
      await this.#write();
    };
  }

  async #write(): Promise<void> {
    const rules = [...this.#cuts].flatMap(rulesOf).map((rule) => `add rule bridge cuts cross ${rule} drop\n`);
    await runIn(this.#bed.switch, 'nft', ['-f', '-'], `add table bridge cuts\ndelete table bridge cuts\nadd table bridge cuts\nadd chain bridge cuts cross { type filter hook forward priority 10; }\n${rules.join('')}`);
  }
}

function rulesOf({ network, host, direction }: Cut): string[] {
  const mine = network === 'ledger' ? `"mg${host}"` : `{ "p${host + 1}", "r${host + 1}" }`; // r: a relay stands in for the port (relay.ts)
  const other = network === 'ledger' ? '' : '!= "pout"';
  const mute = `iifname ${mine}${other === '' ? '' : ` oifname ${other}`}`;
  const deaf = `oifname ${mine}${other === '' ? '' : ` iifname ${other}`}`;
  return [...(direction === 'deaf' ? [] : [mute]), ...(direction === 'mute' ? [] : [deaf])];
}
