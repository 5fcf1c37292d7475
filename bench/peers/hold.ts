/**
 * What every way to hold output has in common, so that one engine drives them all alike.
 *
 * Epochs count from 1; `cut` seals the open one, `commit(e)` releases what it holds. A hold is
 * made over a bed whose member 0 it holds towards the outsider; `close` ends what it started (the
 * bed's own end removes devices, rules and programs with its namespaces).
 */
import { sleep } from '../bed/commands.ts';
import type { Cadence } from '../bed/engine.ts';
import { nowUs } from '../bed/libc.ts';

export interface Hold {
  cut(): Promise<void>;
  commit(epoch: number): Promise<void>;
  close(): Promise<void>;
}

/** The plain bridge: nothing is held, nothing is asked. */
export const NO_HOLD: Hold = { cut: () => Promise.resolve(), commit: () => Promise.resolve(), close: () => Promise.resolve() };

/** Most uncommitted epochs that a driver leaves behind it. */
const IN_FLIGHT_MAX = 64;

/**
 * Cuts and commits by the clock. An interval begins when the cut before it is answered, and what is
 * due is committed before the next cut: with a commit delay below the interval no two sealed epochs
 * are ever in flight, however slow the commands are. A plug needs that.
 */
export class Driver {
  readonly #hold: Hold;
  #open = 1;
  #stopping = false;

  constructor(hold: Hold) {
    this.#hold = hold;
  }

  /** Cuts and commits while `job` runs, then commits what is left. @throws what ended the driving, at once. */
  async during<T>(cadence: Cadence, job: () => Promise<T>): Promise<T> {
    this.#stopping = false;
    const driving = this.#loop(cadence);
    const failed = driving.then(() => new Promise<never>(() => undefined));
    try {
      return await Promise.race([job(), failed]);
    } finally {
      this.#stopping = true;
      await driving;
      await this.#hold.commit(await this.cut());
    }
  }

  /** Seals the open epoch; its number. */
  async cut(): Promise<number> {
    await this.#hold.cut();
    return this.#open++;
  }

  async #loop({ intervalMs, commitDelayMs }: Cadence): Promise<void> {
    const due: { readonly epoch: number; readonly atUs: number }[] = [];
    let nextCutUs = nowUs() + intervalMs * 1e3;
    while (!this.#stopping || due.length > 0) {
      for (let first = due[0]; first !== undefined && first.atUs <= nowUs(); first = due[0]) {
        await this.#hold.commit(first.epoch);
        due.shift();
      }
      if (!this.#stopping && nowUs() >= nextCutUs && due.length < IN_FLIGHT_MAX) {
        due.push({ epoch: await this.cut(), atUs: nowUs() + commitDelayMs * 1e3 });
        nextCutUs = nowUs() + intervalMs * 1e3;
      }
      const waitMs = (Math.min(nextCutUs, due[0]?.atUs ?? nextCutUs) - nowUs()) / 1e3;
      await sleep(Math.max(0, waitMs));
    }
  }
}
