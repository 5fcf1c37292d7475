/**
 * The fence of the portable plane: what comes in at our ports is for us and for nobody else.
 *
 *   port ─► packet sockets (ours) ─► netdev ingress hook: drop ─✗─► a Linux bridge, the host's IP, ARP
 *
 * Without it the host's own stack would answer and forward what a VM sends (weak host model), and a
 * port that somebody puts into a Linux bridge would be forwarded around us. One nftables table
 * named after the daemon's state; a change replaces it as a whole, in one transaction. It stays
 * when the daemon dies (I8) and goes with its device: a device made anew has no fence until the
 * next change is seen, and the host's stack may hear it for that long.
 *
 * Needs `nft` and a kernel with netdev tables (Debian has both).
 */
import { execFileSync } from 'node:child_process';
import { EdgeError } from '../ports.ts';

const NFT_MS_MAX = 5000;

export class Fence {
  readonly #table: string;

  /** `name`: letters, digits and _. */
  constructor(name: string) {
    if (!/^[A-Za-z0-9_]{1,40}$/.test(name)) throw new Error(`not the name of a table: ${name}`);
    this.#table = `netdev ${name}`;
  }

  /** Round exactly these devices, which must exist. */
  around(devices: readonly string[]): void {
    const list = devices.map((device) => `"${device}"`).join(', ');
    const chain = list === '' ? '' : `chain ports {\ntype filter hook ingress devices = { ${list} } priority -300; policy drop;\n}\n`;
    nft(`add table ${this.#table}\ndelete table ${this.#table}\ntable ${this.#table} {\n${chain}}\n`);
  }

  remove(): void {
    nft(`add table ${this.#table}\ndelete table ${this.#table}\n`);
  }
}

function nft(rules: string): void {
  try {
    execFileSync('nft', ['-f', '-'], { input: rules, stdio: ['pipe', 'ignore', 'pipe'], timeout: NFT_MS_MAX });
  } catch (error) {
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim().split('\n')[0] : '';
    throw new EdgeError('plane_down', `the ports could not be fenced off from the host${said === '' ? '' : `: ${said}`}`, 'apt-get install nftables; the kernel needs its netdev tables (CONFIG_NF_TABLES_NETDEV)', error);
  }
}
