/**
 * The process that reads a capture for `sluice replay`: forked, told one job, ended by a signal.
 *
 *   parent ── job ──► child: libpcap reads, the twin classifies, the model sums ── answer ──► parent
 *                            └ --verbose: a line a frame, straight to standard output
 *
 * A process of its own, because the pcap package reads the whole file in one call that cannot be
 * interrupted, hands out one buffer again and again, and may end the process when it is closed.
 * So everything happens inside its callback, nothing of a frame is kept, and writing is synchronous.
 */
import { writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { classifierOf } from './replay-classify.ts';
import { ReplayModel } from './replay-model.ts';
import { frameText } from './replay.ts';
import type { ReplayAnswer, ReplayJob } from './replay.ts';

const LINES_BYTES = 64 * 1024;
const RETRY_MS = 1;

interface PcapFrame {
  readonly buf: Buffer;
  /** tv_sec, tv_usec, captured length, length on the wire: four 32-bit numbers. */
  readonly header: Buffer;
}
interface PcapSession {
  readonly link_type: string;
  readonly session: { dispatch: (buffer: Buffer, header: Buffer) => number };
  on(event: 'packet', listener: (frame: PcapFrame) => void): void;
  on(event: 'complete', listener: () => void): void;
}
interface PcapPackage {
  createOfflineSession(path: string): PcapSession;
}

/** Text to standard output, at once: a pipe that is full is waited for, a closed one ends us. */
class Lines {
  private text = '';

  add(line: string): void {
    this.text += `${line}\n`;
    if (this.text.length >= LINES_BYTES) this.flush();
  }

  flush(): void {
    let rest = Buffer.from(this.text);
    this.text = '';
    const cell = new Int32Array(new SharedArrayBuffer(4));
    while (rest.length > 0) {
      try {
        rest = rest.subarray(writeSync(1, rest));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') process.exit(0);
        Atomics.wait(cell, 0, 0, RETRY_MS);
      }
    }
  }
}

function openCapture(path: string): PcapSession | string {
  let pcap: PcapPackage;
  try {
    pcap = createRequire(import.meta.url)('pcap') as PcapPackage;
  } catch (error) {
    return `the pcap package cannot be loaded (${(error as Error).message.split('\n')[0]}): apt-get install libpcap0.8, then npm rebuild pcap`;
  }
  try {
    const session = pcap.createOfflineSession(path);
    if (session.link_type === 'LINKTYPE_ETHERNET') return session;
    return `${path}: its frames are of ${session.link_type}, not Ethernet: capture on a port or a bridge, not on "any"`;
  } catch (error) {
    return `${path}: not a capture (${(error as Error).message}): expected .pcap or .pcapng, as tcpdump -w writes it`;
  }
}

function replay(job: ReplayJob, answer: (answer: ReplayAnswer) => void): void {
  const capture = openCapture(job.path);
  if (typeof capture === 'string') return answer({ kind: 'problem', message: capture });
  const model = new ReplayModel(job.clock, classifierOf(job.spec));
  const lines = new Lines();
  const native = capture.session.dispatch.bind(capture.session);
  let damaged = false;
  // The package drops the reader's last word; it is -1 when the file ends in the middle.
  capture.session.dispatch = (buffer, header) => {
    const result = native(buffer, header);
    damaged ||= result < 0;
    return result;
  };
  capture.on('packet', ({ buf, header }) => {
    const timeUs = header.readUInt32LE(0) * 1e6 + header.readUInt32LE(4);
    const line = model.add(timeUs, buf.subarray(0, Math.min(header.readUInt32LE(8), buf.length)), header.readUInt32LE(12));
    if (job.verbose !== undefined) lines.add(frameText(line, job.verbose));
  });
  capture.on('complete', () => {
    lines.flush();
    answer({ kind: 'report', report: model.finish(), damaged });
  });
}

process.once('message', (job: ReplayJob) => {
  replay(job, (answer) => process.send?.(answer));
});
