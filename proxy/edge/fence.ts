/**
 * The fence of the portable plane: what comes in at our ports is for us and for nobody else.
 *
 *   port ─► packet sockets (ours) ─► netdev ingress hook: drop ─✗─► a Linux bridge, the host's IP, ARP
 *
 * Without it the host's own stack would answer and forward what a VM sends (weak host model), and a
 * port that somebody puts into a Linux bridge would be forwarded around us. One nftables table
 * named after the daemon's memory; a change replaces it as a whole, in one transaction. It stays
 * when the daemon dies (I8) and goes with its device: a device made anew has no fence until the
 * next change is seen, and the host's stack may hear it for that long. A firewall's reload deletes
 * every table there is (`flush ruleset`): `watch` tells when `whole` is worth asking.
 *
 * The table names its ports in a set, too: a port that another daemon's fence names is refused,
 * because packet sockets are not exclusive, and the second daemon would let pass what the first one
 * holds. That holds for a fence whose daemon is dead as well: its group may be protected.
 *
 * Needs `nft` and a kernel with netdev tables (Debian has both).
 */
import { execFileSync } from 'node:child_process';
import { EdgeError } from '../ports.ts';
import { watchNftables } from './netlink.ts';

const NFT_MS_MAX = 5000;
const PREFIX = 'sluice_';

export class Fence {
  readonly #name: string;
  readonly #table: string;
  /** The table as nft lists it; undefined = there is none. */
  #listing: string | undefined;

  /** `name`: letters, digits and _; this daemon's among those of the machine. */
  constructor(name: string) {
    if (!/^[A-Za-z0-9_]{1,40}$/.test(name)) throw new Error(`not the name of a table: ${name}`);
    this.#name = PREFIX + name;
    this.#table = `netdev ${this.#name}`;
  }

  /** Round exactly these devices, which must exist and be in no other daemon's fence. */
  around(devices: readonly string[]): void {
    this.#mustBeFree(devices);
    const list = devices.map((device) => `"${device}"`).join(', ');
    const parts = `set ports {\ntype ifname;\nelements = { ${list} }\n}\nchain ports {\ntype filter hook ingress devices = { ${list} } priority -300; policy drop;\n}\n`;
    nft(['-f', '-'], `add table ${this.#table}\ndelete table ${this.#table}\ntable ${this.#table} {\n${list === '' ? '' : parts}}\n`);
    const isFirst = this.#listing === undefined;
    this.#listing = this.#list();
    try {
      this.#mustBeFree(devices); // two that start at once see each other here at the latest
    } catch (error) {
      if (isFirst) this.remove();
      throw error;
    }
  }

  /** False: something of it is gone or changed. */
  whole(): boolean {
    return this.#listing !== undefined && this.#list() === this.#listing;
  }
  watch(listener: () => void): { close(): void } {
    return watchNftables(listener);
  }

  remove(): void {
    nft(['-f', '-'], `add table ${this.#table}\ndelete table ${this.#table}\n`);
    this.#listing = undefined;
  }

  #list(): string | undefined {
    try {
      return nft(['list', 'table', 'netdev', this.#name]);
    } catch {
      return undefined;
    }
  }
  #mustBeFree(devices: readonly string[]): void {
    for (const { table, ports } of fences()) {
      const port = table === this.#name ? undefined : ports.find((one) => devices.includes(one));
      if (port === undefined) continue;
      throw new EdgeError('plane_down', `port ${port} is fenced off by another sluiced (table ${table})`, `a port belongs to one daemon; when that one is gone for good and its VMs are stopped: nft delete table netdev ${table}`);
    }
  }
}

interface SetOfPorts {
  readonly table: string;
  readonly ports: readonly string[];
}
/** Those of every daemon of this namespace. */
function fences(): SetOfPorts[] {
  const { nftables } = JSON.parse(nft(['-j', 'list', 'sets', 'netdev'])) as { nftables: { set?: { table: string; name: string; elem?: string[] } }[] };
  return nftables.flatMap(({ set }) => (set?.name === 'ports' && set.table.startsWith(PREFIX) ? [{ table: set.table, ports: set.elem ?? [] }] : []));
}

function nft(args: readonly string[], input = ''): string {
  try {
    return execFileSync('nft', args, { input, stdio: ['pipe', 'pipe', 'pipe'], timeout: NFT_MS_MAX, encoding: 'utf8' });
  } catch (error) {
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim().split('\n')[0] : '';
    throw new EdgeError('plane_down', `the ports could not be fenced off from the host${said === '' ? '' : `: ${said}`}`, 'apt-get install nftables; the kernel needs its netdev tables (CONFIG_NF_TABLES_NETDEV)', error);
  }
}
