/**
 * A hold plane as the main thread sees it, wherever its loop runs: numbers calls, turns answers into
 * promises and facts into calls. Who extends it brings the way there and back.
 *
 *   running ──► stopped        nobody waits for ever: when the loop ends, for whatever reason,
 *      └──────► dead           every open call is refused
 *
 * Counters are read from shared memory without asking.
 * Facts are delivered in the order in which they happened.
 */
import { EdgeError } from '../ports.ts';
import type { GroupId, HeldEpoch, HeldFrame, HoldCounters, HoldOptions, HoldPlane, NicIndex, PlaneFact } from '../ports.ts';
import type { Colour, Epoch, HeldFate } from '../core/types.ts';
import { epoch as asEpoch } from '../core/types.ts';
import { Meter } from './meter.ts';
import { DUMP_ROW, clockMs } from './protocol.ts';
import type { Answer, Asked, Dump, Message, Request } from './protocol.ts';

interface Call {
  readonly resolve: (value: Answer) => void;
  readonly reject: (error: Error) => void;
}

const CLASSES = ['held', 'held', 'early', 'late'] as const;
const EMPTY = new Meter();

export abstract class HoldDesk implements HoldPlane {
  readonly #calls = new Map<number, Call>();
  readonly #meters = new Map<GroupId, Meter>();
  readonly #listeners: ((fact: PlaneFact) => void)[] = [];
  #nextCall = 1;
  #state: 'running' | 'stopped' | 'dead' = 'running';
  #reason = '';

  /** Passes a request on; their order is kept. */
  protected abstract post(request: Request): void;
  /** Counters of a group that opens, at zero; the loop writes to the same memory. */
  protected abstract meterOf(id: GroupId): Meter;
  /** Tells the loop to end, and waits until it has. */
  protected abstract end(): Promise<void>;

  open(id: GroupId, options: HoldOptions): Promise<void> {
    const meter = this.meterOf(id);
    this.#meters.set(id, meter);
    return this.#tell({ op: 'open', id, options, meter: meter.memory });
  }
  close(id: GroupId): Promise<void> {
    this.#meters.delete(id);
    return this.#tell({ op: 'close', id });
  }
  advance(id: GroupId, colour: Colour, epoch: Epoch): void {
    this.#send({ op: 'advance', id, colour, epoch });
  }
  release(id: GroupId, colour: Colour): void {
    this.#send({ op: 'release', id, colour, askedAtMs: clockMs() });
  }
  restore(id: GroupId, restored: Colour, next: Colour, epoch: Epoch): Promise<void> {
    return this.#tell({ op: 'restore', id, restored, next, epoch });
  }
  receiver(id: GroupId, nics: readonly NicIndex[], colour: Colour): void {
    this.#send({ op: 'receiver', id, nics, colour });
  }
  async drain(id: GroupId, nics: readonly NicIndex[] | undefined, held: HeldFate): Promise<number> {
    return (await this.ask({ op: 'drain', id, nics, fate: held === 'release' ? 1 : 2 })) as number;
  }
  async held(id: GroupId): Promise<readonly HeldEpoch[]> {
    return (await this.ask({ op: 'held', id })) as readonly HeldEpoch[];
  }
  async *dump(id: GroupId, bytesMax: number): AsyncGenerator<readonly HeldFrame[], void, undefined> {
    let from: Dump['next'];
    for (let left = bytesMax; ; ) {
      const piece = (await this.ask({ op: 'dump', id, from, bytesMax: left })) as Dump;
      if (piece.rows.length > 0) yield framesOf(piece);
      if (piece.next === undefined || piece.rows.length === 0) return;
      left -= piece.bytes.length;
      from = piece.next;
    }
  }
  counters(id: GroupId): HoldCounters {
    return (this.#meters.get(id) ?? EMPTY).read(performance.timeOrigin + performance.now());
  }
  onFact(listener: (fact: PlaneFact) => void): void {
    this.#listeners.push(listener);
  }
  async stop(): Promise<void> {
    if (this.#state === 'running') this.#state = 'stopped';
    await this.end();
  }

  #send(request: Request): void {
    if (this.#state === 'running') this.post(request);
  }

  protected ask(asked: Asked): Promise<Answer> {
    return this.askWith((call) => { this.post({ ...asked, call }); });
  }
  async #tell(asked: Asked): Promise<void> {
    await this.ask(asked);
  }
  /** `post` sends what is answered under this number. */
  protected askWith(post: (call: number) => void): Promise<Answer> {
    if (this.#state !== 'running') return Promise.reject(this.#down());
    const call = this.#nextCall++;
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve, reject });
      post(call);
    });
  }

  protected tell(fact: PlaneFact): void {
    for (const listener of this.#listeners) listener(fact);
  }

  protected receive(message: Message): void {
    if (message.op === 'fact') {
      this.tell(message.fact);
      return;
    }
    const call = this.#calls.get(message.call);
    this.#calls.delete(message.call);
    if (message.op === 'answer') call?.resolve(message.value);
    else call?.reject(new EdgeError('plane_down', message.message, message.fix));
  }

  /** The loop has ended; without `stop` that is a death, and `reason` says of what. */
  protected ended(reason: string): void {
    if (this.#state === 'running') this.#state = 'dead';
    this.#reason = this.#state === 'dead' ? reason : '';
    for (const call of this.#calls.values()) call.reject(this.#down());
    this.#calls.clear();
    if (this.#state !== 'dead') return;
    this.tell({ kind: 'dead', reason });
  }

  #down(): EdgeError {
    const why = this.#reason === '' ? '' : `: ${this.#reason}`;
    return new EdgeError('plane_down', `the hold loop has ended${why}`, 'restart sluiced; what was held is lost, nothing leaks');
  }
}

function framesOf(dump: Dump): HeldFrame[] {
  const frames: HeldFrame[] = [];
  let at = 0;
  for (let i = 0; i < dump.rows.length; i += DUMP_ROW) {
    const bytes = dump.rows[i + 4]!;
    frames.push({
      epoch: asEpoch(dump.rows[i]!), nic: dump.rows[i + 1]!, class: CLASSES[dump.rows[i + 2]!] ?? 'held',
      arrivedNs: BigInt(Math.round(dump.rows[i + 3]! * 1e3)) * 1000n,
      bytes: dump.bytes.subarray(at, at + bytes), wireBytes: bytes,
    });
    at += bytes;
  }
  return frames;
}
