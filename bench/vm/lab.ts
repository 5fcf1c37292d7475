/**
 * A guest's lab, asked from the outsider's namespace: one line, one answer. Under protection the
 * question and the answer are held like any frame; what a guest measures it measures itself.
 * Who asked does not wait for the guest's end of the connection: that is held a checkpoint longer.
 */
import { runIn } from '../bed/commands.ts';
import type { VmBed } from './bed.ts';
import { LAB_PORT } from './guest.ts';

const ASK = `const [ip, port, line] = process.argv.slice(1);
const socket = require('node:net').connect(+port, ip, () => socket.write(line + '\\n'));
socket.on('data', (d) => { process.stdout.write(d); if (String(d).includes('\\n')) socket.destroy(); });
socket.on('error', (e) => { console.error(e.message); process.exit(1); });`;

async function ask(bed: VmBed, guest: string, line: string): Promise<string> {
  const answer = await runIn(bed.bed.outsider.namespace ?? '', process.execPath, ['-e', ASK, bed.ip(guest), String(LAB_PORT), line]);
  if (answer === '' || answer.startsWith('failed')) throw new Error(`guest ${guest}, asked "${line}": ${answer}`);
  return answer.trim();
}

function numbers(pattern: RegExp, answer: string): number[] {
  const found = pattern.exec(answer);
  if (found === null) throw new Error(`not an answer of a guest: ${answer}`);
  return found.slice(1).map(Number);
}

/** The last number the guest gave or passed on. */
export async function countOf(bed: VmBed, guest: string): Promise<number> {
  return numbers(/^count (\d+)$/, await ask(bed, guest, 'count'))[0] ?? Number.NaN;
}

/** Changes a word of every page of that much of the guest's memory, 8 MiB at most. */
export async function dirtyKib(bed: VmBed, guest: string, kib: number): Promise<void> {
  const [done] = numbers(/^dirty (\d+) KiB$/, await ask(bed, guest, `dirty ${kib}`));
  if (done !== kib) throw new Error(`guest ${guest} changed ${done} of ${kib} KiB`);
}

/** TCP from one guest to another, by the sender's clock and the receiver's bytes. */
export const sendMbps = (bed: VmBed, from: string, to: string, ms: number): Promise<number> => sendTo(bed, from, bed.ip(to), ms);

/** The same to the outsider, where a sink must listen (bench/peers/sink-child.ts). */
export const sendOutMbps = (bed: VmBed, from: string, ms: number): Promise<number> => sendTo(bed, from, bed.bed.outsider.ip, ms);

async function sendTo(bed: VmBed, from: string, ip: string, ms: number): Promise<number> {
  const [bytes = Number.NaN, us = Number.NaN] = numbers(/^sent (\d+) bytes (\d+) us$/, await ask(bed, from, `send ${ip} ${ms}`));
  return (bytes * 8) / us;
}

/** Round trips of 8 bytes over TCP between two guests. */
export async function pingUs(bed: VmBed, from: string, to: string, count: number): Promise<{ p50: number; p99: number }> {
  const [p50 = Number.NaN, p99 = Number.NaN] = numbers(/^ping \d+ p50 (\d+) us p99 (\d+) us$/, await ask(bed, from, `ping ${bed.ip(to)} ${count}`));
  return { p50, p99 };
}
