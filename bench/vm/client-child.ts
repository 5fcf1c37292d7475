/**
 * The client that counts, a process of its own so that nothing else delays it: one TCP connection
 * to the front guest, one request at a time, and every answer must be the last number plus one.
 *
 *   node client-child.js HOST PORT SPACING_MS
 *
 * Says on standard output, a JSON object a line: at most every REPORT_MS where it is, and at its end
 * (SIGTERM, or the connection's) the whole account. A connection is never made again: a broken one
 * is what a client notices.
 */
import { connect } from 'node:net';
import type { ClientAccount, ClientReport, WrongAnswer } from './client-account.ts';

const REPORT_MS = 20;
const MESSAGE_BYTES = 16;
const WRONG_KEPT_MAX = 32;

const [host, port, spacing] = process.argv.slice(2);
const spacingMs = Number(spacing ?? 0);
const nowMs = (): number => performance.timeOrigin + performance.now();

let answers = 0;
let first: number | undefined;
let last: number | undefined;
let reportedAtMs = 0;
let sentAtMs = 0;
const wrong: WrongAnswer[] = [];
const latenciesMs: number[] = [];
const answersAtMs: number[] = []; // all: minutes of counting are some ten thousand
let buffered = Buffer.alloc(0);
let next: NodeJS.Timeout | undefined;

const socket = connect({ host: host ?? '', port: Number(port), noDelay: true }, request);
socket.on('data', (bytes) => {
  buffered = Buffer.concat([buffered, bytes]);
  while (buffered.length >= MESSAGE_BYTES) {
    answer(Number(buffered.readBigUInt64LE(0)), Number(buffered.readBigUInt64LE(8)));
    buffered = buffered.subarray(MESSAGE_BYTES);
  }
});
socket.on('error', (error) => finish(error.message));
socket.on('close', () => finish('the connection was closed'));
process.once('SIGTERM', () => finish(undefined));

function request(): void {
  const message = Buffer.alloc(MESSAGE_BYTES);
  message.writeBigUInt64LE(BigInt(answers + 1), 0);
  sentAtMs = nowMs();
  socket.write(message);
}

function answer(id: number, number: number): void {
  const atMs = nowMs();
  const due = last === undefined ? number : last + 1;
  if ((id !== answers + 1 || number !== due) && wrong.length < WRONG_KEPT_MAX) wrong.push({ atMs, id, number, due });
  answers++;
  first ??= number;
  last = number;
  latenciesMs.push(atMs - sentAtMs);
  answersAtMs.push(atMs);
  if (atMs - reportedAtMs >= REPORT_MS) report(atMs);
  next = setTimeout(request, spacingMs);
}

function report(atMs: number): void {
  reportedAtMs = atMs;
  const line: ClientReport = { kind: 'report', atMs, answers, last: last ?? 0, wrong: wrong.length };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** `broken`: what ended the connection; undefined where the end was asked for. */
function finish(broken: string | undefined): void {
  clearTimeout(next);
  const account: ClientAccount = {
    kind: 'account', answers, first, last, wrong, answersAtMs, latenciesMs, ...(broken === undefined ? {} : { broken }),
  };
  process.stdout.write(`${JSON.stringify(account)}\n`, () => process.exit(0));
}
