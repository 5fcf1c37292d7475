/**
 * The daemon's side of the hooks child: starts it, gives it events, counts what became of them.
 *
 *     event ─► wanted? ─► room in the pipe? ─► child ─► report ─► counts, a line of the log
 *                              └─ no, or no child ─► dropped and counted
 *     child gone ─► AGAIN_MS ─► a new one; what it had is lost
 *
 * `event` never waits and never throws: it is called where events are published. Nothing about
 * holding depends on a hook: one that fails, hangs or floods costs lines of the log at most.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { PATH } from './command.ts';
import { Lines, lineOf } from './protocol.ts';
import type { HookOutcome, HookReport, HookSettings } from './protocol.ts';

/** A process runs compiled code, also when this file itself is run from its source (tests). */
const CHILD = new URL(import.meta.url.endsWith('.ts') ? '../../dist/proxy/hooks/hooks-child.js' : './hooks-child.js', import.meta.url);
/** Not read yet by the child; a thousand events. */
const UNREAD_BYTES_MAX = 512 * 1024;
const AGAIN_MS = 1000;
/** Longer than the child gives what waits. */
const END_MS = 6000;
/** A target's failures are one line of the log in this time. */
const QUIET_MS = 10_000;

export type HookCounts = Readonly<Record<HookOutcome, number>>;
interface Target {
  readonly counts: Record<HookOutcome, number>;
  unsaid: number;
  saidAtMs: number;
}

export class HookLink {
  #settings: HookSettings;
  readonly #types: ReadonlySet<string>;
  readonly #log: (fields: object, message: string) => void;
  readonly #targets = new Map<string, Target>();
  #child: ChildProcess | undefined;
  #again: NodeJS.Timeout | undefined;
  #ending = false;

  /** `log`: for what was not delivered. */
  constructor(settings: HookSettings, types: readonly string[], log: (fields: object, message: string) => void) {
    this.#settings = settings;
    this.#types = new Set(types);
    this.#log = log;
    this.#start();
  }

  event(id: string, event: { readonly type: string }): void {
    if (!this.#types.has(event.type)) return;
    const input = this.#child?.stdin;
    if (this.#ending || !input?.writable || input.writableLength > UNREAD_BYTES_MAX) {
      for (const target of this.#names()) this.#heard({ target, outcome: 'dropped', why: 'the hooks child does not run or does not read' });
      return;
    }
    input.write(lineOf({ id, type: event.type, text: JSON.stringify({ id, host: this.#settings.host, ...event }) }));
  }

  /** For events to come. */
  set(settings: HookSettings): void {
    this.#settings = settings;
    if (this.#child?.stdin?.writable === true) this.#child.stdin.write(lineOf({ set: settings }));
  }

  counts(): ReadonlyMap<string, HookCounts> {
    return new Map([...this.#targets].map(([name, { counts }]) => [name, counts]));
  }

  /** What was given is delivered, as far as that takes no longer than END_MS. */
  async stop(): Promise<void> {
    this.#ending = true;
    clearTimeout(this.#again);
    const child = this.#child;
    if (child === undefined) return;
    const timer = setTimeout(() => child.kill('SIGKILL'), END_MS);
    await new Promise<void>((resolve) => {
      child.once('close', () => resolve());
      child.stdin?.end();
    });
    clearTimeout(timer);
  }

  #names(): string[] {
    const { command, urls } = this.#settings;
    return [...(command === undefined ? [] : ['command']), ...urls.map((_, i) => `webhook-${i + 1}`)];
  }

  /** A machine without descriptors or memory can't start it: later it may. */
  #start(): void {
    const failed = (why: string): void => {
      this.#child = undefined;
      if (this.#ending) return;
      this.#log({ why }, 'the hooks child ended; it is started again');
      this.#again = setTimeout(() => this.#start(), AGAIN_MS);
    };
    let child: ChildProcess;
    try {
      child = spawn(process.execPath, [fileURLToPath(CHILD)], { stdio: ['pipe', 'pipe', 'inherit'], env: { PATH, LANG: 'C.UTF-8' } });
    } catch (error) {
      return failed(String(error));
    }
    this.#attend(child, failed);
  }

  #attend(child: ChildProcess, failed: (why: string) => void): void {
    let isOver = false;
    const over = (why: string): void => {
      if (isOver) return;
      isOver = true;
      failed(why);
    };
    child.once('error', (error) => over(error.message));
    child.once('close', (code, signal) => over(String(code ?? signal)));
    if (!child.stdout || !child.stdin) return; // 'error' says why
    this.#child = child;
    const lines = new Lines();
    child.stdout.setEncoding('utf8').on('data', (piece: string) => {
      try {
        for (const report of lines.take(piece)) this.#heard(report as HookReport);
      } catch {
        child.kill('SIGKILL'); // it speaks another language: a new one may not
      }
    });
    child.stdin.on('error', () => undefined); // its end is told by 'close'
    child.stdin.write(lineOf({ set: this.#settings }));
  }

  #heard({ target, outcome, why }: HookReport): void {
    const known = this.#targets.get(target) ?? { counts: { done: 0, failed: 0, dropped: 0 }, unsaid: 0, saidAtMs: -Infinity };
    this.#targets.set(target, known);
    known.counts[outcome] += 1;
    if (outcome === 'done') return;
    known.unsaid += 1;
    const nowMs = performance.now();
    if (nowMs - known.saidAtMs < QUIET_MS) return;
    this.#log({ target, outcome, why, events: known.unsaid }, 'a hook did not get its events');
    known.unsaid = 0;
    known.saidAtMs = nowMs;
  }
}
