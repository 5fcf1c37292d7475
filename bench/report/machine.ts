/** On what the figures were taken: hardware, kernel, versions. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { repositoryRoot } from '../bed/daemon.ts';

export type Machine = Readonly<Record<string, string>>;

function version(program: string, args: readonly string[]): string | undefined {
  try {
    return /\d+\.\d+(\.\d+)?/.exec(execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))?.[0];
  } catch {
    return undefined; // not installed: its scenarios were skipped and say so
  }
}

export function machine(): Machine {
  const { version: own } = JSON.parse(readFileSync(join(repositoryRoot(), 'package.json'), 'utf8')) as { version: string };
  const tools = Object.entries({
    iperf3: version('iperf3', ['--version']), sockperf: version('sockperf', ['--version']),
    'Open MPI': version('orterun', ['--version']), QEMU: version('qemu-system-x86_64', ['--version']),
  }).flatMap(([name, found]) => (found === undefined ? [] : [`${name} ${found}`]));
  return {
    processor: `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`, kernel: `Linux ${release().split('-')[0]}`, Node: process.version, Sluice: own, tools: tools.join(', '),
  };
}

export const machineText = (of: Machine): string =>
  `${of['processor']}, ${of['memory']}; ${of['kernel']}; Node ${of['Node']}; Sluice ${of['Sluice']}; ${of['tools']}`;
