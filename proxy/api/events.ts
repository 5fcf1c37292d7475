/**
 * Events, from the parts that publish them to the clients that follow them.
 *
 *     publish ──► history (last HISTORY_MAX) ──► resume after Last-Event-ID
 *        └──────► every subscriber, at once, in order
 *
 * An id is `<boot>-<n>`: n counts from 1 in each life of the daemon, boot tells the lives apart. A
 * client that resumes with an id that is not in the history (another life, or too long ago) first
 * gets a `gap`: it must read the groups' state again. Publishing never waits: a subscriber that
 * can't keep up is its transport's problem (sse.ts closes it).
 */
import type { CoreEvent } from '../core/types.ts';
import type { ApiEvent } from './contract.ts';

/** Events kept for resuming; the oldest go first. */
const HISTORY_MAX = 4096;

export class Stamped {
  readonly event: ApiEvent;
  readonly #boot: string;
  readonly #number: number;
  #text: string | undefined;

  constructor(boot: string, number: number, event: ApiEvent) {
    this.#boot = boot;
    this.#number = number;
    this.event = event;
  }
  get id(): string {
    return `${this.#boot}-${this.#number}`;
  }
  /** The event as one server-sent message, made once for all clients, and not where nobody asks. */
  get text(): string {
    return (this.#text ??= `id: ${this.id}\nevent: ${this.event.type}\ndata: ${JSON.stringify(this.event)}\n\n`);
  }
}
export type Listener = (stamped: Stamped) => void;

/** An event of the core as clients see it. */
export const eventOf = (event: CoreEvent, generation: number, group: string, atMs: number): ApiEvent =>
  (event.type === 'acked' ? { atMs, group, generation, ...event, members: [...event.members] } : { atMs, group, generation, ...event });

export class EventHub {
  readonly #boot: string;
  readonly #historyMax: number;
  /** The newest, each at its number modulo the most there may be. */
  readonly #history: Stamped[] = [];
  readonly #listeners = new Set<Listener>();
  #count = 0;

  /** `boot` must differ between two lives of the daemon. */
  constructor(boot: string, historyMax = HISTORY_MAX) {
    this.#boot = boot;
    this.#historyMax = historyMax;
  }

  publish(event: ApiEvent): void {
    this.#count += 1;
    const stamped = this.#stamp(event);
    this.#history[this.#count % this.#historyMax] = stamped;
    for (const listener of this.#listeners) listener(stamped);
  }

  /** Returns the call that ends the subscription. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What a client that last saw `id` has missed. `nowMs` dates the gap, if there is one. */
  since(id: string, nowMs: number): readonly Stamped[] {
    const seen = this.#number(id);
    const oldest = Math.max(0, this.#count - this.#historyMax);
    if (seen === undefined || seen < oldest || seen > this.#count) {
      return [this.#stamp({ type: 'gap', atMs: nowMs })];
    }
    return Array.from({ length: this.#count - seen }, (_, i) => this.#history[(seen + 1 + i) % this.#historyMax]).filter((one) => one !== undefined);
  }

  get subscribers(): number {
    return this.#listeners.size;
  }

  #stamp(event: ApiEvent): Stamped {
    return new Stamped(this.#boot, this.#count, event);
  }

  #number(id: string): number | undefined {
    const cut = id.lastIndexOf('-');
    const n = id.slice(cut + 1);
    return id.slice(0, cut) === this.#boot && /^[0-9]{1,15}$/.test(n) ? Number(n) : undefined;
  }
}
