/** Clocks that jump: each host's sluiced reads its own through bench/programs/clock-jump.c. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Surroundings } from '../bed/cluster.ts';
import { run } from '../bed/commands.ts';
import { repositoryRoot } from '../bed/daemon.ts';
import type { HostsBed } from '../bed/hosts.ts';

const BYTES = 16;
const shimOf = (bed: HostsBed): string => join(bed.directory, 'clock-jump.so');
const fileOf = (bed: HostsBed, host: number): string => join(bed.directory, `clock-${host}`);

export const jumpingClocks: Surroundings = {
  prepare: (bed) => run('gcc', ['-O2', '-shared', '-fPIC', '-o', shimOf(bed), join(repositoryRoot(), 'bench/programs/clock-jump.c'), '-ldl']),
  env: (bed, host) => {
    const fd = openSync(fileOf(bed, host), 'w', 0o600);
    ftruncateSync(fd, BYTES);
    closeSync(fd);
    return { LD_PRELOAD: shimOf(bed), SL_CLOCK: fileOf(bed, host) };
  },
};

export class Clocks {
  readonly #bed: HostsBed;
  /** By host: wall clock and time since boot, seconds off. */
  readonly #off = new Map<number, readonly [number, number]>();

  constructor(bed: HostsBed) {
    this.#bed = bed;
  }

  /** Adds to both clocks. Time since boot only goes forward, as the kernel promises. */
  jump(host: number, wallS: number, bootS: number): void {
    if (bootS < 0) throw new Error('time since boot never goes back');
    const [wall, boot] = this.#off.get(host) ?? [0, 0];
    const off = [wall + wallS, boot + bootS] as const;
    this.#off.set(host, off);
    const bytes = Buffer.alloc(BYTES);
    for (const [i, s] of off.entries()) bytes.writeBigInt64LE(BigInt(s) * 1_000_000_000n, i * 8);
    const fd = openSync(fileOf(this.#bed, host), 'r+');
    writeSync(fd, bytes, 0, BYTES, 0); // one write, but a reader may see one clock before the other: they are two
    closeSync(fd);
  }
}
