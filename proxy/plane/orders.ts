/**
 * Orders to the hold loop that want no answer, in memory that both threads share: one writer, one
 * reader, no system call and no allocation. And the bell that wakes the loop, which is rung only
 * for a sleeper that would miss something.
 *
 *      head ─► │ order │ order │ order │ ◄─ tail         records of 8 words, ORDERS_MAX of them
 *
 *   writer    record, tail, then `sleep`:  awake ─► nothing to do, the loop looks before it sleeps
 *                                          asleep ─► awake, ring
 *   reader    `sleep` = asleep, then tail: an order is there ─► awake again, no sleep
 *
 * All of these are sequentially consistent, so one of the two sees the other: no order is slept
 * over. A *lazy* order changes nothing of what is in the ring (a new colour's name, a receiver for
 * whom nothing waits); it is read before the next frame, and rings only for a loop that sleeps
 * `expectant` (early frames wait for a receiver), or when the memory fills up.
 *
 * Requests with an answer travel by message; an ASK order in here keeps their place in the order.
 *
 * Full: the writer rings and waits, a millisecond at a time, for at most WAIT_MS_MAX; a loop that
 * takes that long is dead, and `push` says so.
 */
const ORDERS_MAX = 8192;
const WORDS = 8;
const WAIT_MS_MAX = 2000;
/** Words of the head: each in a cache line of its own. */
const HEAD = 0;
const TAIL = 16;
const SLEEP = 32;
const STOP = 48;
const NEVER_NOTIFIED = 49;
const RECORDS = 64;
const BYTES = 4 * (RECORDS + ORDERS_MAX * WORDS);

/** States of the sleep word. */
const AWAKE = 0;
export const ASLEEP = 1;
export const EXPECTANT = 2;

/** Kinds of orders: which of the fields each uses. */
export const ADVANCE = 1; // id, colour, value = epoch
export const RELEASE = 2; // id, colour, value = clockMs when it was asked for
export const RECEIVER = 3; // id, colour, nic
export const ASK = 4; // none: the next message of the port

/** One order, as the reader fills it in again and again. */
export class Order {
  kind = 0;
  id = 0;
  /** int32 */
  colour = 0;
  nic = 0;
  value = 0;
}

export class Orders {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #values: Float64Array;

  constructor(memory = new SharedArrayBuffer(BYTES)) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
    this.#values = new Float64Array(memory);
  }

  /** Writer. False = the reader has not made room in time. `ring` wakes it if there is none. */
  push(kind: number, id: number, colour: number, nic: number, value: number, ring: () => void): boolean {
    const words = this.#words;
    const tail = words[TAIL]!;
    if (((tail - Atomics.load(words, HEAD)) | 0) === ORDERS_MAX && !this.#waitForRoom(tail, ring)) return false;
    const at = RECORDS + (tail & (ORDERS_MAX - 1)) * WORDS;
    words[at] = kind;
    words[at + 1] = id;
    words[at + 2] = colour;
    words[at + 3] = nic;
    this.#values[(at + 4) >> 1] = value;
    Atomics.store(words, TAIL, (tail + 1) | 0);
    return true;
  }

  #waitForRoom(tail: number, ring: () => void): boolean {
    for (let waitedMs = 0; waitedMs < WAIT_MS_MAX; waitedMs++) {
      if (this.wakes(false)) ring();
      Atomics.wait(this.#words, NEVER_NOTIFIED, 0, 1);
      if (((tail - Atomics.load(this.#words, HEAD)) | 0) < ORDERS_MAX) return true;
    }
    return false;
  }

  /** Writer, after a push: true = the caller must ring the bell. */
  wakes(lazy: boolean): boolean {
    const state = Atomics.load(this.#words, SLEEP);
    if (state === AWAKE || (lazy && state === ASLEEP && this.#waiting < ORDERS_MAX / 2)) return false;
    return Atomics.exchange(this.#words, SLEEP, AWAKE) !== AWAKE;
  }

  get #waiting(): number {
    return (this.#words[TAIL]! - Atomics.load(this.#words, HEAD)) | 0;
  }

  /** Reader. False = there is none. */
  pop(order: Order): boolean {
    const words = this.#words;
    const head = words[HEAD]!;
    if (head === Atomics.load(words, TAIL)) return false;
    const at = RECORDS + (head & (ORDERS_MAX - 1)) * WORDS;
    order.kind = words[at]!;
    order.id = words[at + 1]!;
    order.colour = words[at + 2]!;
    order.nic = words[at + 3]!;
    order.value = this.#values[(at + 4) >> 1]!;
    Atomics.store(words, HEAD, (head + 1) | 0);
    return true;
  }

  /** Reader, before it sleeps. False = don't: there is an order, or the end. */
  maySleep(state: typeof ASLEEP | typeof EXPECTANT): boolean {
    Atomics.store(this.#words, SLEEP, state);
    if (this.#words[HEAD]! === Atomics.load(this.#words, TAIL) && !this.stopped) return true;
    this.awake();
    return false;
  }

  /** Reader, after it slept. */
  awake(): void {
    Atomics.store(this.#words, SLEEP, AWAKE);
  }

  /** Anyone: the end, whatever is still to be read. */
  stop(): void {
    Atomics.store(this.#words, STOP, 1);
  }
  get stopped(): boolean {
    return Atomics.load(this.#words, STOP) !== 0;
  }
}
