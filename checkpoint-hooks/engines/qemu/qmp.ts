/**
 * QMP: one QEMU's control socket. JSON values, one a line, answers matched by id.
 *
 *   connect ─► greeting ─► qmp_capabilities ─► ask … ask …          events ─► listeners
 *                                               └ each has a deadline
 *   the socket ends, or a line is no JSON, or longer than LINE_BYTES_MAX
 *         └► every question still open is answered with QmpClosed, once; later ones at once
 *
 * A QEMU that is killed closes its socket within a millisecond: `closed` is the fastest word of its
 * death. A QEMU serves one client at a time; who connects while another is served gets no greeting
 * and runs into the deadline.
 *
 * It knows no command's meaning and repeats nothing.
 */
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';

const LINE_BYTES_MAX = 4 << 20;
const ASK_DEADLINE_MS = 2000;
const GREETING_DEADLINE_MS = 2000;

/** QEMU understood and refused. */
export class QmpRefused extends Error {
  override readonly name = 'QmpRefused';
}
/** There is no one to ask, or no answer in time. */
export class QmpClosed extends Error {
  override readonly name = 'QmpClosed';
}

export interface QmpEvent {
  readonly event: string;
  /** QEMU's own time of it, microseconds of the wall clock. */
  readonly atUs: number;
  readonly data: Readonly<Record<string, unknown>>;
}
interface Line {
  readonly QMP?: unknown;
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
  readonly timestamp?: { readonly seconds: number; readonly microseconds: number };
}
interface Question {
  readonly answer: (value: unknown) => void;
  readonly fail: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class Qmp {
  readonly path: string;
  /** Resolves, never rejects, when the socket has ended: with the reason. */
  readonly closed: Promise<string>;
  private readonly socket: Socket;
  private readonly open = new Map<number, Question>();
  private readonly listeners = new Set<(event: QmpEvent) => void>();
  private readonly mourners = new Set<(why: string) => void>();
  private rest = '';
  private nextId = 1;
  private ended: string | undefined;
  private readonly tellClosed: (why: string) => void;
  private greet: (() => void) | undefined;

  private constructor(path: string, socket: Socket) {
    this.path = path;
    this.socket = socket;
    let tell: (why: string) => void = () => undefined;
    this.closed = new Promise((resolve) => (tell = resolve));
    this.tellClosed = tell;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.take(text));
    socket.on('error', (error) => this.end(error.message));
    socket.on('close', () => this.end('the process closed it'));
  }

  /** Connected and past the greeting; throws QmpClosed otherwise. */
  static async connect(path: string, deadlineMs: number = GREETING_DEADLINE_MS): Promise<Qmp> {
    const qmp = new Qmp(path, createConnection(path));
    const timer = setTimeout(() => qmp.end(`no greeting within ${deadlineMs} ms`), deadlineMs);
    const greeted = new Promise<void>((resolve) => (qmp.greet = resolve));
    const why = await Promise.race([greeted, qmp.closed]);
    clearTimeout(timer);
    if (typeof why === 'string') throw new QmpClosed(`${path}: ${why}`);
    await qmp.ask('qmp_capabilities');
    return qmp;
  }

  get isOpen(): boolean {
    return this.ended === undefined;
  }

  /** What QEMU returned. Throws QmpRefused or QmpClosed; after the deadline too, and the socket is given up. */
  ask(execute: string, args?: object, deadlineMs: number = ASK_DEADLINE_MS): Promise<unknown> {
    if (this.ended !== undefined) return Promise.reject(new QmpClosed(`${this.path}: ${this.ended}`));
    const id = this.nextId++;
    return new Promise((answer, fail) => {
      // An answer that comes after its deadline could be anybody's idea of the state: start anew.
      const timer = setTimeout(() => this.end(`no answer to ${execute} within ${deadlineMs} ms`), deadlineMs);
      this.open.set(id, { answer, fail: (error) => fail(error instanceof QmpRefused ? new QmpRefused(`${execute}: ${error.message}`) : error), timer });
      this.socket.write(`${JSON.stringify({ execute, ...(args === undefined ? {} : { arguments: args }), id })}\n`);
    });
  }

  /** Until the returned function is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /**
   * `closed` for who waits again and again: a promise that is pending keeps everybody who ever waited
   * for it. Told once, at once where it has ended already; until the returned function is called.
   */
  onEnd(listener: (why: string) => void): () => void {
    if (this.ended !== undefined) listener(this.ended);
    else this.mourners.add(listener);
    return () => this.mourners.delete(listener);
  }

  close(): void {
    this.end('closed by us');
  }

  private take(text: string): void {
    const lines = (this.rest + text).split('\n');
    this.rest = lines.pop() ?? '';
    if (this.rest.length > LINE_BYTES_MAX) return this.end(`a line longer than ${LINE_BYTES_MAX} bytes`);
    for (const line of lines) {
      if (this.ended !== undefined) return;
      if (line.trim() === '') continue;
      try {
        this.handle(JSON.parse(line) as Line);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        return this.end('it does not speak JSON');
      }
    }
  }

  private handle(line: Line): void {
    if (line.QMP !== undefined) return this.greet?.();
    if (line.event !== undefined) {
      const { seconds, microseconds } = line.timestamp ?? { seconds: 0, microseconds: 0 };
      const event = { event: line.event, atUs: seconds * 1e6 + microseconds, data: line.data ?? {} };
      for (const listener of this.listeners) listener(event);
      return;
    }
    const question = line.id === undefined ? undefined : this.open.get(line.id);
    if (question === undefined || line.id === undefined) return;
    this.open.delete(line.id);
    clearTimeout(question.timer);
    if (line.error === undefined) question.answer(line.return);
    else question.fail(new QmpRefused(line.error.desc));
  }

  private end(why: string): void {
    if (this.ended !== undefined) return;
    this.ended = why;
    this.socket.destroy();
    for (const { fail, timer } of this.open.values()) {
      clearTimeout(timer);
      fail(new QmpClosed(`${this.path}: ${why}`));
    }
    this.open.clear();
    this.tellClosed(why);
    for (const listener of this.mourners) listener(why);
    this.mourners.clear();
  }
}
