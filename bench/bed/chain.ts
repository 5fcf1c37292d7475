/**
 * A request chain over a bed's members: one server program a member, the last is the store, and a
 * client outside. Every message is real TCP between the members' namespaces.
 */
import { join } from 'node:path';
import type { Bed } from './bed.ts';
import { CommandError, end, runIn, startIn, until, type Running } from './commands.ts';
import { repositoryRoot } from './daemon.ts';

const PROGRAM = 'dist/bench/programs/tier-child.js';
const PORT = '7000';

export interface ChainRun {
  /** Asks of the last-but-one tier to the store, a request. */
  readonly queries: number;
  readonly seconds: number;
  /** Most pause between two requests. */
  readonly pauseMs: number;
}

export interface ChainResult {
  /** As the client felt them. */
  readonly outsideUs: readonly number[];
  /** The part inside the group: from the front's reading of the request to its writing of the answer. */
  readonly insideUs: readonly number[];
  readonly raw: string;
}

/** The servers stand before the client starts, the store first: each connects to the next one. */
export async function chain(bed: Bed, { queries, seconds, pauseMs }: ChainRun): Promise<ChainResult> {
  const servers: Running[] = [];
  const program = join(repositoryRoot(), PROGRAM);
  try {
    for (let i = bed.members.length - 1; i >= 0; i--) {
      const { namespace, ip } = bed.member(i);
      const next = i === bed.members.length - 1 ? [] : [bed.member(i + 1).ip, i === bed.members.length - 2 ? String(queries) : '1'];
      const server = startIn(namespace ?? '', process.execPath, [program, 'serve', ip, PORT, ...next]);
      servers.push(server);
      await until(`tier ${i + 1} listens`, () => {
        if (server.child.exitCode !== null) throw new CommandError(`tier ${i + 1}: ${server.output()}`);
        return server.output().includes('listening');
      });
    }
    const raw = await runIn(bed.outsider.namespace ?? '', process.execPath, [program, 'client', bed.member(0).ip, PORT, String(seconds), String(pauseMs)]);
    return { ...(JSON.parse(raw) as { outsideUs: number[]; insideUs: number[] }), raw };
  } finally {
    for (const server of servers) await end(server, 'SIGKILL');
  }
}
