/**
 * `sluice replay`, the parent's side: forks the reader, gives it the job, waits for its one answer
 * and ends it by a signal (see replay-child.ts for why it is a process of its own). No root, no
 * daemon; memory does not grow with the capture.
 */
import { fork } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { bytesText, msText, pairs, table } from './format.ts';
import type { GroupSpec } from './group-file.ts';
import { REPLAY_VERDICTS } from './replay-model.ts';
import type { FrameLine, ReplayClock, ReplayReport } from './replay-model.ts';

const ROWS_SHOWN = 200;

export interface ReplayJob {
  readonly path: string;
  readonly spec: GroupSpec;
  readonly clock: ReplayClock;
  /** A line a frame, for a person or as JSON. */
  readonly verbose: 'text' | 'json' | undefined;
}
/** closed: whoever read our output wanted no more of it. */
export type ReplayAnswer =
  | { readonly kind: 'closed' }
  | { readonly kind: 'report'; readonly report: ReplayReport; readonly damaged: boolean }
  | { readonly kind: 'problem'; readonly message: string };

/** This file's own kind: compiled it forks compiled code, in development the source. */
function childFile(): { readonly path: string; readonly execArgv: readonly string[] } {
  const source = import.meta.url.endsWith('.ts');
  const path = fileURLToPath(new URL(source ? './replay-child.ts' : './replay-child.js', import.meta.url));
  return { path, execArgv: source ? ['--import', 'tsx'] : [] };
}

export async function replay(job: ReplayJob): Promise<ReplayAnswer> {
  try {
    await access(job.path, constants.R_OK);
  } catch (error) {
    return { kind: 'problem', message: `${job.path}: ${(error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file' : 'may not be read by this user'}` };
  }
  const { path, execArgv } = childFile();
  const child = fork(path, [], { execArgv: [...execArgv], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  try {
    return await new Promise<ReplayAnswer>((resolve, reject) => {
      child.once('message', (answer) => resolve(answer as ReplayAnswer));
      child.once('error', reject);
      child.once('exit', (code, signal) => {
        if (code === 0) resolve({ kind: 'closed' });
        else resolve({ kind: 'problem', message: `${job.path}: its reader ended early (${signal ?? `exit ${code}`})` });
      });
      child.send(job);
    });
  } finally {
    child.kill('SIGKILL');
  }
}

export function frameText(line: FrameLine, form: 'text' | 'json'): string {
  if (form === 'json') return JSON.stringify(line);
  const released = line.releasedMs === undefined ? '' : `released ${(line.releasedMs / 1000).toFixed(6)} s`;
  return `${(line.atMs / 1000).toFixed(6).padStart(12)} s  ${line.verdict.padEnd(5)}  ${(line.from ?? '-').padEnd(15)}  ${String(line.bytes).padStart(6)} B  epoch ${line.epoch}  ${released}`.trimEnd();
}

export function reportText(report: ReplayReport, spec: GroupSpec): string {
  const verdicts = table(
    ['verdict', 'frames', 'bytes'],
    REPLAY_VERDICTS.map((verdict) => [verdict, String(report.verdicts[verdict].frames), bytesText(report.verdicts[verdict].bytes)]),
    ['left', 'right', 'right'],
  );
  const rows = report.epochs.slice(0, ROWS_SHOWN).map((row) => [
    String(row.epoch),
    String(row.frames),
    bytesText(row.bytes),
    `${(row.releasedMs / 1000).toFixed(3)} s`,
    msText(row.delayMs.p50),
    msText(row.delayMs.p99),
  ]);
  const more = report.epochsWithOutput - rows.length;
  const epochs = rows.length === 0 ? 'nothing would have been held' : table(['epoch', 'held', 'bytes', 'released at', 'delay p50', 'p99'], rows, ['right', 'right', 'right', 'right', 'right', 'right']);
  const fits = report.peak.bytes <= spec.hold.bytes * spec.hold.highWater ? 'fits' : report.peak.bytes <= spec.hold.bytes ? 'is above the high-water mark of' : 'does not fit';
  const totals = pairs([
    ['capture', `${report.frames} frames, ${bytesText(report.bytes)}, ${msText(report.lengthMs)}${report.outOfOrder === 0 ? '' : `, ${report.outOfOrder} out of order`}`],
    ['held', `${report.heldFrames} frames, ${bytesText(report.heldBytes)}, in ${report.epochsWithOutput} epochs`],
    ['added delay', `p50 ${msText(report.delayMs.p50)}, p99 ${msText(report.delayMs.p99)}, max ${msText(report.delayMs.max)}`],
    ['highest held', `${bytesText(report.peak.bytes)} in ${report.peak.frames} frames, at ${(report.peak.atMs / 1000).toFixed(3)} s: ${fits} hold.bytes ${bytesText(spec.hold.bytes)}`],
  ]);
  return [verdicts, '', epochs, ...(more > 0 ? [`… and ${more} epochs more (-o json has them)`] : []), '', totals].join('\n');
}
