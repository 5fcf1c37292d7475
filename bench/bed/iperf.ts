/**
 * iperf3 between two places of a bed: one server process a run, both ends pinned to a core each,
 * cubic (bbr paces itself to half on such links, unpinned runs scatter by 40 %).
 */
import { CommandError, end, runIn, startIn, until, type Running } from './commands.ts';
import type { Place } from './bed.ts';

export interface IperfRun {
  readonly from: Place;
  readonly to: Pick<Place, 'namespace' | 'ip' | 'name'>;
  /** Whole seconds: iperf3 takes a part of one for 0, which is for ever. Rounded up. */
  readonly seconds: number;
  /** Left out before: slow start, which a longer round trip makes longer. */
  readonly warmUpSeconds?: number;
  /** UDP at this rate instead of TCP; 0 = as fast as it goes. */
  readonly udpMbps?: number;
  /** Bytes of a datagram; 1400 unless told. */
  readonly udpBytes?: number;
  /** Parallel streams of one client process. */
  readonly streams?: number;
  /** `to` sends and `from` receives, over a connection that `from` opened. */
  readonly reverse?: boolean;
  /** Length of the intervals in the raw report. */
  readonly intervalSeconds?: number;
  /** TCP at no more than this rate. */
  readonly tcpMbps?: number;
  readonly port?: number;
  readonly clientCpu?: number;
  readonly serverCpu?: number;
}

interface Summary {
  readonly bits_per_second: number;
  readonly lost_percent?: number;
  readonly retransmits?: number;
}
interface Report {
  readonly error?: string;
  readonly end: { readonly sum_received?: Summary; readonly sum_sent?: Summary; readonly sum?: Summary };
}

export interface IperfResult {
  readonly gbps: number;
  readonly lostPercent: number;
  readonly retransmits: number;
  /** iperf3's own JSON. */
  readonly raw: string;
}

let ports = 5201;
/** A transfer that is stuck in a hold is ended this long after its time: iperf3 itself waits for ever. */
const END_SECONDS_MAX = 30;

export async function iperf(_bed: { readonly id: string }, options: IperfRun): Promise<IperfResult> {
  const port = String(options.port ?? ports++);
  const server = await listen(options, port);
  try {
    const kind = protocol(options);
    const secondsMax = options.seconds + (options.warmUpSeconds ?? 0) + END_SECONDS_MAX;
    const raw = await runIn(needsNamespace(options.from), 'timeout', [
      '--signal=KILL', String(secondsMax), 'taskset', '-c', String(options.clientCpu ?? 0), 'iperf3', '-c', options.to.ip, '-p', port, '-t', String(Math.max(1, Math.ceil(options.seconds))), '-O', String(options.warmUpSeconds ?? 0), '-J', ...kind,
      ...(options.streams === undefined ? [] : ['-P', String(options.streams)]), ...(options.reverse === true ? ['-R'] : []),
      ...(options.intervalSeconds === undefined ? [] : ['-i', String(options.intervalSeconds)]),
    ]);
    return parse(raw);
  } finally {
    await end(server, 'SIGKILL');
  }
}

export const tcpGbps = async (bed: { readonly id: string }, options: IperfRun): Promise<number> => (await iperf(bed, options)).gbps;

function protocol({ udpMbps, udpBytes, tcpMbps }: IperfRun): string[] {
  if (udpMbps !== undefined) return ['-u', '-b', udpMbps === 0 ? '0' : `${udpMbps}M`, '-l', String(udpBytes ?? 1400)];
  return ['-C', 'cubic', ...(tcpMbps === undefined ? [] : ['-b', `${tcpMbps}M`])];
}

async function listen(options: IperfRun, port: string): Promise<Running> {
  const server = startIn(needsNamespace(options.to), 'taskset', [
    '-c', String(options.serverCpu ?? 1), 'iperf3', '-s', '-1', '-p', port, '--forceflush',
  ]);
  await until(`iperf3 listens on ${port}`, () => {
    if (server.child.exitCode !== null) throw new CommandError(`iperf3 -s: ${server.output()}`);
    return server.output().includes('listening');
  });
  return server;
}

function parse(raw: string): IperfResult {
  const report = JSON.parse(raw) as Report;
  if (report.error !== undefined) throw new CommandError(`iperf3: ${report.error}`);
  const received = report.end.sum_received ?? report.end.sum;
  if (received === undefined) throw new CommandError(`iperf3 said nothing of use: ${raw.slice(0, 400)}`);
  return {
    gbps: received.bits_per_second / 1e9,
    lostPercent: report.end.sum?.lost_percent ?? 0,
    retransmits: report.end.sum_sent?.retransmits ?? 0,
    raw,
  };
}

function needsNamespace(place: Pick<Place, 'namespace' | 'name'>): string {
  if (place.namespace === undefined) throw new Error(`${place.name} is a tap: it has no TCP stack`);
  return place.namespace;
}
