/**
 * Others' turn in between, where work has had the event loop for long: a look at all of 600 devices takes
 * a tenth of a second, and no command of any group would be answered meanwhile.
 */
const LONG_MS = 5;

export class Turns {
  #sinceMs = performance.now();

  /** Resolves at once where it is too early. */
  async give(): Promise<void> {
    if (performance.now() - this.#sinceMs < LONG_MS) return;
    await othersTurn();
    this.#sinceMs = performance.now();
  }
}

export const othersTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
