/**
 * The sieve: at the client's door, for the frames that a takeover lets out of the dead life.
 *
 *   kill ─► rule goes in ─► takeover: frames of epochs <= R leave ─► first commit of the new life ─► rule goes out
 *                           └── all that may leave in between ──┘
 *
 * What the new life sends is held until its first commit, so all TCP that comes from the group in
 * between is output of the dead life that was committed and not yet sent. It is counted, or counted
 * and dropped: the difference between the two is what giving it again is worth. The oracle's capture
 * stands before the sieve and sees the frames either way. It costs the group some milliseconds of
 * a core, in both ways alike.
 */
import { spawn, spawnSync } from 'node:child_process';
import { namespacePath, runIn } from '../bed/commands.ts';
import type { VmBed } from './bed.ts';

export type SieveKind = 'count' | 'drop';

const CHAIN = 'netdev sieve door';
const COUNTED = /counter packets (\d+)/;

export class Sieve {
  readonly #namespace: string;
  readonly #rule: string;
  #isIn = false;
  /** Frames of the dead life that came after its death. */
  frames = 0;

  private constructor(namespace: string, rule: string) {
    this.#namespace = namespace;
    this.#rule = rule;
  }

  static async create({ bed, group }: VmBed, kind: SieveKind): Promise<Sieve> {
    const namespace = bed.outsider.namespace ?? '';
    await runIn(namespace, 'nft', ['-f', '-'], `add table netdev sieve\nadd chain ${CHAIN} { type filter hook ingress device "eth0" priority 0; }\n`);
    const macs = group.guests.flatMap(({ nics }) => nics.map(({ mac }) => mac));
    return new Sieve(namespace, `add rule ${CHAIN} ether saddr { ${macs.join(', ')} } ip protocol tcp counter${kind === 'drop' ? ' drop' : ''}`);
  }

  /** Not waited for: a takeover takes longer. */
  putIn(): void {
    this.#isIn = true;
    spawn('nsenter', [`--net=${namespacePath(this.#namespace)}`, 'nft', this.#rule], { stdio: 'inherit' });
  }

  /** At once: before a frame of the new life may come. */
  takeOut(): void {
    if (!this.#isIn) return;
    this.#isIn = false;
    const { stdout } = spawnSync('nsenter', [`--net=${namespacePath(this.#namespace)}`, 'nft', `list chain ${CHAIN}; flush chain ${CHAIN}`], { encoding: 'utf8' });
    this.frames += Number(COUNTED.exec(stdout)?.[1] ?? Number.NaN);
  }
}
