/**
 * sockperf ping-pong between two places of a bed: one message under way, whole round trips, both
 * ends pinned to a core each. sockperf leaves its own warm-up out.
 */
import { runIn, startIn, end, until, CommandError } from './commands.ts';
import type { Place } from './bed.ts';

export interface PingPong {
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  /** What sockperf said. */
  readonly raw: string;
}

export interface PingPongRun {
  readonly from: Place;
  readonly to: Place;
  readonly protocol: 'tcp' | 'udp';
  readonly seconds: number;
  readonly bytes?: number;
}

const PORT = '11111';

export async function pingPong({ from, to, protocol, seconds, bytes }: PingPongRun): Promise<PingPong> {
  const tcp = protocol === 'tcp' ? ['--tcp'] : [];
  const server = startIn(to.namespace ?? '', 'taskset', ['-c', '1', 'sockperf', 'server', '-i', to.ip, '-p', PORT, ...tcp]);
  try {
    await until('sockperf listens', () => {
      if (server.child.exitCode !== null) throw new CommandError(`sockperf server: ${server.output()}`);
      return /to terminate the server|Warmup stage|block on socket/i.test(server.output());
    });
    const raw = await runIn(from.namespace ?? '', 'taskset', [
      '-c', '0', 'sockperf', 'ping-pong', '-i', to.ip, '-p', PORT, '-t', String(Math.max(1, Math.round(seconds))),
      '-m', String(bytes ?? 64), '--full-rtt', ...tcp,
    ]);
    return { p50Us: percentile(raw, '50.000'), p99Us: percentile(raw, '99.000'), p999Us: percentile(raw, '99.900'), raw };
  } finally {
    await end(server, 'SIGKILL');
  }
}

function percentile(raw: string, which: string): number {
  const found = new RegExp(`percentile ${which.replace('.', '\\.')} =\\s*([0-9.]+)`).exec(raw)?.[1];
  if (found === undefined) throw new CommandError(`sockperf gave no percentile ${which}: ${raw.slice(-400)}`);
  return Number(found);
}
