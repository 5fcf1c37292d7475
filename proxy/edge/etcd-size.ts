/**
 * How large etcd's file is: it keeps every ack until it is compacted, and takes none any more at its
 * bound. Asked now and then of the node that answers; each has a file of its own, of nearly the same size.
 */
const ASK_MS = 30_000;
/** Half of etcd's own bound (--quota-backend-bytes). */
const FILLING_BYTES = 2 ** 30;

export class StoreSize {
  readonly #ask: () => Promise<number>;
  readonly #onFilling: (bytes: number) => void;
  #askedMs = Number.NEGATIVE_INFINITY;
  #isFilling = false;
  /** As it last said; undefined = it has not said yet. */
  bytes: number | undefined;

  /** `onFilling`: the file has grown beyond FILLING_BYTES. Once, until it is smaller. */
  constructor(ask: () => Promise<number>, onFilling: (bytes: number) => void) {
    this.#ask = ask;
    this.#onFilling = onFilling;
  }

  /** Never rejects: nothing depends on it. */
  async look(): Promise<void> {
    if (performance.now() - this.#askedMs < ASK_MS) return;
    this.#askedMs = performance.now();
    const bytes = await this.#ask().catch(() => Number.NaN);
    if (!Number.isSafeInteger(bytes)) return;
    const isFilling = bytes > FILLING_BYTES;
    if (isFilling && !this.#isFilling) this.#onFilling(bytes);
    this.#isFilling = isFilling;
    this.bytes = bytes;
  }
}
