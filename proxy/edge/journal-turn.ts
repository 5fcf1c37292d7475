/**
 * Lines that are added in one turn of the event loop, to be written at once: a write is a system call
 * whatever its length, and an engine of many groups adds a hundred lines in a turn.
 *
 *     add ─► add ─► add ─► end of the turn: `write` is called, which takes them all
 */
export interface Lines {
  readonly bytes: Buffer;
  /** Answers everybody who added one of them. */
  readonly settle: (error: Error | undefined) => void;
}
interface Batch {
  readonly lines: string[];
  readonly written: Promise<void>;
  readonly settle: Lines['settle'];
}

export class Turn {
  readonly #write: () => void;
  #batch: Batch | undefined;

  constructor(write: () => void) {
    this.#write = write;
  }

  /** Resolves when it is written. */
  add(line: string): Promise<void> {
    this.#batch ??= this.#begin();
    this.#batch.lines.push(line);
    return this.#batch.written;
  }

  /** undefined: nothing was added since. */
  take(): Lines | undefined {
    const batch = this.#batch;
    this.#batch = undefined;
    return batch === undefined ? undefined : { bytes: Buffer.from(batch.lines.join('')), settle: batch.settle };
  }

  #begin(): Batch {
    let settle: Lines['settle'] = () => undefined;
    const written = new Promise<void>((resolve, reject) => {
      settle = (error) => (error === undefined ? resolve() : reject(error));
    });
    queueMicrotask(this.#write);
    return { lines: [], written, settle };
  }
}
