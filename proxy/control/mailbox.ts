/**
 * The queue in front of one group: one thing in flight, in order, everyone answered.
 *
 *    send(command) ──► │ c3 │ c2 │ c1 │ ──┐
 *                      └──── bounded ────┘ ├──► serve, one at a time ──► answer to c1's sender
 *    tell(note) ─────► │ newest of each kind │ ─┘ notes go first
 *
 * Commands wait in order, at most `commandsMax`; one more is refused at once (`MailboxFull`).
 * Notes (facts of the data plane, reminders) are never refused: there is one place for each kind,
 * and a newer note takes the place of an older one through `merge`.
 * `close` answers everybody who waits with the reason and lets what is in flight end by itself.
 * It knows nothing of groups, and does not retry.
 */
import type { Soon } from './soon.ts';

export class MailboxFull extends Error {
  override readonly name = 'MailboxFull';
}

export interface MailboxOptions<C, R, N extends { readonly kind: string }> {
  readonly commandsMax: number;
  readonly serve: (command: C) => Soon<R>;
  /** Must not throw for anything that may happen; what it throws is a fault of the program. */
  readonly note: (note: N) => Soon<void>;
  readonly merge: (older: N, newer: N) => N;
  /** Nothing is left to do. It must send nothing itself. */
  readonly onIdle: () => void;
  readonly onFault: (fault: unknown) => void;
  /** What serving a command threw; its sender is told, too. */
  readonly onThrown: (error: unknown) => void;
}

interface Waiting<C, R> {
  readonly command: C;
  readonly resolve: (result: R) => void;
  readonly reject: (reason: Error) => void;
}

export class Mailbox<C, R, N extends { readonly kind: string }> {
  readonly #options: MailboxOptions<C, R, N>;
  readonly #commands: Waiting<C, R>[] = [];
  readonly #notes = new Map<string, N>();
  /** Set before the first line of a run: what a served command sends in turn must queue. */
  #busy = false;
  #running: Promise<void> = Promise.resolve();
  #closed: Error | undefined;

  constructor(options: MailboxOptions<C, R, N>) {
    this.#options = options;
  }

  send(command: C): Promise<R> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    if (this.isFull) {
      return Promise.reject(new MailboxFull(`${this.#options.commandsMax} commands wait already`));
    }
    return new Promise((resolve, reject) => {
      this.#commands.push({ command, resolve, reject });
      this.#wake();
    });
  }

  tell(note: N): void {
    if (this.#closed !== undefined) return;
    const older = this.#notes.get(note.kind);
    this.#notes.set(note.kind, older === undefined ? note : this.#options.merge(older, note));
    this.#wake();
  }

  get isFull(): boolean {
    return this.#commands.length >= this.#options.commandsMax;
  }
  get idle(): boolean {
    return !this.#busy;
  }

  /** Resolves when what was in flight has ended. */
  async close(reason: Error): Promise<void> {
    this.#closed ??= reason;
    this.#notes.clear();
    for (const { reject } of this.#commands.splice(0)) reject(this.#closed);
    await this.#running;
  }

  #wake(): void {
    if (this.#busy) return;
    this.#busy = true;
    this.#running = this.#run();
  }

  /** Until nothing is left; a fault ends nothing but what it befell. Never rejects. */
  async #run(): Promise<void> {
    while (this.#notes.size + this.#commands.length > 0) {
      try {
        const done = this.#next();
        if (done !== undefined) await done;
      } catch (fault) {
        this.#options.onFault(fault);
      }
    }
    this.#busy = false;
    this.#options.onIdle();
  }

  /** undefined: it is done. */
  #next(): Soon<void> {
    for (const note of this.#notes.values()) {
      this.#notes.delete(note.kind);
      return this.#options.note(note);
    }
    const waiting = this.#commands.shift();
    return waiting === undefined ? undefined : this.#answer(waiting);
  }

  #answer({ command, resolve, reject }: Waiting<C, R>): Soon<void> {
    const refuse = (error: unknown): void => {
      reject(error instanceof Error ? error : new Error(String(error)));
      this.#options.onThrown(error);
    };
    try {
      const result = this.#options.serve(command);
      return result instanceof Promise ? result.then(resolve, refuse) : resolve(result);
    } catch (error) {
      return refuse(error);
    }
  }
}
