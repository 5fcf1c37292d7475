/**
 * An MPI job over a bed's members: Open MPI, TCP alone, one rank a member, started without a remote
 * shell (programs/mpi-agent.sh enters the member's namespace instead).
 *
 * Ranks yield while they wait: with fewer cores than busy threads a spinning rank would measure the
 * scheduler. The daemons stay children of the job, and its files stay in its directory, so that an
 * end by force leaves nothing behind. Throws Unavailable where Open MPI or the program is not installed.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Unavailable } from '../scenario.ts';
import type { Bed } from './bed.ts';
import { runIn } from './commands.ts';
import { repositoryRoot } from './daemon.ts';

const AGENT = 'bench/programs/mpi-agent.sh';

export function needsMpi(program: string, debianPackage: string): void {
  for (const [each, from] of [['orterun', 'openmpi-bin'], [program, debianPackage]] as const) {
    if (!existsSync(`/usr/bin/${each}`)) throw new Unavailable(`${each} is not installed (Debian's ${from})`);
  }
}

/** What the job printed. `directory`: where its files are. */
export function mpiRun(bed: Bed, directory: string, program: readonly string[], secondsMax: number): Promise<string> {
  const front = bed.member(0).namespace ?? '';
  const agent = `${join(repositoryRoot(), AGENT)} ${front.slice(0, -1)}`;
  const tcpOnly = { btl: 'tcp,self', btl_tcp_if_include: 'eth0', oob_tcp_if_include: 'eth0', plm_rsh_no_tree_spawn: '1', mpi_yield_when_idle: '1', plm_rsh_agent: agent, orte_tmpdir_base: directory };
  return runIn(front, 'timeout', [
    '-k', '3', String(secondsMax), 'orterun', '--allow-run-as-root', '--leave-session-attached', '--bind-to', 'none', '--wd', directory,
    ...Object.entries(tcpOnly).flatMap(([key, value]) => ['--mca', key, value]),
    '--host', bed.members.map(({ ip }) => `${ip}:1`).join(','), '-np', String(bed.members.length), ...program,
  ]);
}
