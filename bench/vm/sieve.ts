/**
 * The sieve: at the client's door, for the frames that a takeover lets out of the dead life.
 *
 *   kill ─► rule goes in ─► takeover: frames of epochs <= R leave ─► first cut of the new life ─► rule goes out
 *                           └── all that may leave in between ──┘
 *
 * What the new life sends is held until its first commit, so all TCP that comes from the group in
 * between is output of the dead life that was committed and not yet sent. It is counted, or counted
 * and dropped: the difference between the two is what letting it out is worth. The oracle's capture
 * stands before the sieve and sees the frames either way. One nft waits for its orders, because to
 * start one takes the group's cores longer than a takeover.
 */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { namespacePath, runIn } from '../bed/commands.ts';
import type { VmBed } from './bed.ts';

export type SieveKind = 'count' | 'drop';

const CHAIN = 'netdev sieve door';
const COUNTED = /counter packets (\d+)/g;

export class Sieve {
  readonly #nft: ChildProcessByStdio<Writable, Readable, null>;
  readonly #rule: string;
  #isIn = false;
  #said = '';

  private constructor(namespace: string, rule: string) {
    this.#rule = rule;
    this.#nft = spawn('nsenter', [`--net=${namespacePath(namespace)}`, 'nft', '-i'], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#nft.stdout.setEncoding('utf8').on('data', (text: string) => (this.#said += text));
  }

  static async create({ bed, group }: VmBed, kind: SieveKind): Promise<Sieve> {
    const namespace = bed.outsider.namespace ?? '';
    await runIn(namespace, 'nft', ['-f', '-'], `add table netdev sieve\nadd chain ${CHAIN} { type filter hook ingress device "eth0" priority 0; }\n`);
    const macs = group.guests.flatMap(({ nics }) => nics.map(({ mac }) => mac));
    const rule = `add rule ${CHAIN} ether saddr { ${macs.join(', ')} } ip protocol tcp counter${kind === 'drop' ? ' drop' : ''}`;
    return new Sieve(namespace, rule);
  }

  putIn(): void {
    this.#isIn = true;
    this.#nft.stdin.write(`${this.#rule}\n`);
  }

  takeOut(): void {
    if (!this.#isIn) return;
    this.#isIn = false;
    this.#nft.stdin.write(`list chain ${CHAIN}\nflush chain ${CHAIN}\n`);
  }

  /** Frames of the dead lives that came after their deaths. */
  get frames(): number {
    return [...this.#said.matchAll(COUNTED)].reduce((sum, [, frames]) => sum + Number(frames), 0);
  }

  close(): void {
    this.#nft.stdin.end('quit\n');
  }
}
