/**
 * The daemon's side of the probing process: starts it, reads it, starts it again.
 *
 *    start ─► running ─► lines: round, answer ─► listener
 *               └ ended, however ─► AGAIN_MS later another; meanwhile nothing is heard, and nothing concluded
 *
 * A process that lives and sends no round for SILENT_MS is killed, and another started. `trouble`
 * says what keeps it from probing. Nothing here knows what the signs mean.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** A process runs compiled code, also when this file itself is run from its source (tests). */
const CHILD = new URL(import.meta.url.endsWith('.ts') ? '../../dist/proxy/edge/probe-child.js' : './probe-child.js', import.meta.url);
const AGAIN_MS = 1000;
const SILENT_MS = 10_000;
const SAID_BYTES_MAX = 4096;
const LINE_BYTES_MAX = 65_536;

export type ProbeSign = { readonly kind: 'round' } | { readonly kind: 'answer'; readonly address: string };
export interface ProberOptions {
  readonly addresses: readonly string[];
  readonly everyMs: number;
  readonly onSign: (sign: ProbeSign) => void;
  /** Once for each end of the process. */
  readonly onEnd: (why: string) => void;
}

export class Prober {
  readonly #options: ProberOptions;
  readonly #watch: NodeJS.Timeout;
  #child: ChildProcess | undefined;
  #again: NodeJS.Timeout | undefined;
  #roundAtMs = performance.now();
  #lookedAtMs = performance.now();
  #said = '';
  #why = 'it has not begun';
  #isProbing = false;
  #closed = false;

  constructor(options: ProberOptions) {
    this.#options = options;
    this.#start();
    this.#watch = setInterval(() => this.#look(), AGAIN_MS).unref();
  }

  /** Why nothing is probed now. */
  get trouble(): string | undefined {
    return this.#isProbing ? undefined : this.#why;
  }
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#watch);
    clearTimeout(this.#again);
    this.#child?.kill('SIGKILL');
  }

  #start(): void {
    const { addresses, everyMs } = this.#options;
    const child = spawn(process.execPath, [fileURLToPath(CHILD), String(everyMs), ...addresses], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child = child;
    this.#said = '';
    this.#roundAtMs = performance.now();
    let rest = '';
    child.stdin.on('error', () => undefined); // its end is told by 'close'
    child.stdout.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = (lines.pop() ?? '').slice(-LINE_BYTES_MAX);
      for (const line of lines) this.#hear(line);
    });
    child.stderr.on('data', (chunk: Buffer) => (this.#said = (this.#said + chunk.toString()).slice(-SAID_BYTES_MAX)));
    child.once('error', (error) => (this.#said = error.message));
    child.once('close', (code, signal) => this.#ended(code ?? signal ?? 'no reason'));
  }

  #ended(how: number | string): void {
    if (this.#closed) return;
    this.#isProbing = false;
    const words = lastWords(this.#said);
    this.#why = `the probing process ended with ${how}${words === '' ? '' : `: ${words}`}`;
    this.#options.onEnd(this.#why);
    this.#again = setTimeout(() => this.#start(), AGAIN_MS);
    this.#again.unref();
  }

  #hear(line: string): void {
    const sign = signOf(line, this.#options.addresses);
    if (sign === undefined || this.#closed) return;
    if (sign.kind === 'round') {
      this.#roundAtMs = performance.now();
      this.#isProbing = true;
    }
    this.#options.onSign(sign);
  }

  /** One that is silent is ended. Not by a daemon that was paused itself: what waits is read first. */
  #look(): void {
    const nowMs = performance.now();
    const wasPaused = nowMs - this.#lookedAtMs > 3 * AGAIN_MS;
    this.#lookedAtMs = nowMs;
    if (wasPaused) this.#roundAtMs = nowMs;
    else if (nowMs - this.#roundAtMs > Math.max(SILENT_MS, 4 * this.#options.everyMs)) this.#child?.kill('SIGKILL');
  }
}

/** The line of an error, of a stack that Node printed. */
function lastWords(said: string): string {
  const lines = said.split('\n').map((line) => line.trim()).filter((line) => line !== '');
  return lines.find((line) => /Error: /.test(line)) ?? lines.at(-1) ?? '';
}

function signOf(line: string, addresses: readonly string[]): ProbeSign | undefined {
  try {
    const said = JSON.parse(line) as { readonly round?: unknown; readonly answer?: unknown };
    if (typeof said.round === 'number') return { kind: 'round' };
    return typeof said.answer === 'string' && addresses.includes(said.answer) ? { kind: 'answer', address: said.answer } : undefined;
  } catch {
    return undefined;
  }
}
