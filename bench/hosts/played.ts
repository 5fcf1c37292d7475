/**
 * The other hosts of a cluster's groups, of which the ledger alone is there (programs/played-child.ts):
 * so that one machine can show what one host of several costs and carries, where it has not the cores
 * for all of them. Their acks are real writes of the daemon's own ledger; they hold and release nothing.
 */
import { join } from 'node:path';
import type { Cluster } from '../bed/cluster.ts';
import { until } from '../bed/commands.ts';
import { cpuUs } from '../bed/cpu.ts';
import { repositoryRoot } from '../bed/daemon.ts';
import { LineProgram } from '../peers/lines.ts';

const PROGRAM = 'dist/bench/programs/played-child.js';
const WAIT_MS = 60_000;

export class PlayedHosts {
  readonly names: readonly string[];
  readonly #program: LineProgram;

  constructor(cluster: Cluster, names: readonly string[]) {
    this.names = names;
    this.#program = new LineProgram(cluster.bed.host(0), process.execPath, [join(repositoryRoot(), PROGRAM), cluster.etcd.endpoints[0] ?? '', ...names]);
  }

  /** They ack only what they have heard of. */
  async know(groups: number): Promise<void> {
    await until(`the played hosts know ${groups} groups`, async () => Number(await this.#program.ask('known')) >= groups, WAIT_MS);
  }
  ack(group: string, epoch: number): void {
    this.#program.tell(`${group} ${epoch}`);
  }
  /** CPU time of all of them, microseconds. */
  cpuUs(): number {
    return cpuUs(this.#program.pid);
  }
  close(): Promise<void> {
    return this.#program.close();
  }
}
