/**
 * Lanes, gates and ring as the kernel has them around a pump, in memory: what goes in, what comes out
 * of a gate, and how long each takes is the test's to say.
 *
 *   send ─► enter ─┬─ lane: queue ▐ gate ─► transit ─► alight ─┬─ out                     one log of what
 *                  │                                           └─ spilled ─► wire ─► ring   has left, both ways
 *                  └─ wire ─► ring ─► sink
 *
 * `transit` and `wire` are first in, first out. A gate lets as many through as its bucket has, and only
 * when something comes behind, as the kernel's do.
 */
import type { GroupCells } from '../../proxy/plane/cells.ts';
import { FRAME_COST, LANE_LAYOUT, LANE_STATE, LaneCells, OUT_OF_ROOM, QUEUE_LAYOUT } from '../../proxy/plane/lane-cells.ts';
import { Lanes } from '../../proxy/plane/lanes.ts';
import { Patience } from '../../proxy/plane/valves.ts';
import type { Valves } from '../../proxy/plane/valves.ts';
import { Meter } from '../../proxy/plane/meter.ts';
import { Pump } from '../../proxy/plane/pump.ts';
import type { PlaneFact } from '../../proxy/ports.ts';
import { Intake } from '../../proxy/ring/frames.ts';
import type { FrameSink, FrameTable } from '../../proxy/ring/frames.ts';
import { CLASS_HELD, LANES, LEAD_NOTICE, LEAD_SPILLED, packStamp } from '../../proxy/ring/stamp.ts';
import { TestSource } from './ring-fixture.ts';

const BLOCK_FRAMES = 40;

export interface LaneFrame {
  readonly id: number;
  readonly nic: number;
  /** Counted without wrap. */
  readonly colour: number;
  readonly length: number;
}
type Queued = LaneFrame | 'marker' | 'filler';
interface Moving {
  readonly lane: number;
  readonly what: Queued;
  readonly round: boolean;
}
/** As the kernel refuses what it can't do. */
class Refused extends Error {
  override readonly name = 'SystemError';
}

export class LaneWorld implements Valves {
  readonly batch = 8;
  readonly cells: LaneCells;
  readonly pump: Pump;
  readonly facts: PlaneFact[] = [];
  /** Ids of what has left, in order. */
  readonly left: LaneFrame[] = [];
  readonly lost: LaneFrame[] = [];
  nowMs = 1000;
  /** The gates refuse to be changed. */
  refuses = false;
  readonly patience = new Patience();
  /** What the next change of a gate waits for the kernel's lock, ms. */
  waits = 0;
  #waitedMs = 0;
  /** What goes into a queue is gone, as where its device has no carrier. */
  swallows = false;
  commit: number;
  readonly #source = new TestSource(64, 64, 14);
  readonly #words = new Int32Array(new ArrayBuffer(LANES * LANE_LAYOUT.size));
  readonly #queueWords = new Uint32Array(new ArrayBuffer(QUEUE_LAYOUT.size));
  readonly #queues: Queued[][] = Array.from({ length: LANES }, () => []);
  readonly #tokens = new Int32Array(LANES);
  #transit: Moving[] = [];
  #wire: { readonly frame: LaneFrame; readonly lead: number }[] = [];
  readonly #byId: LaneFrame[] = [];
  readonly #sent = new Int32Array(64);
  readonly #in = new Int32Array(8);
  readonly #out = new Int32Array(8);
  readonly #gone = new Int32Array(8);

  constructor(colour: number, bytesMax = 1 << 20) {
    this.commit = colour - 1;
    this.cells = new LaneCells(0, { lanes: this.#words.buffer, queues: this.#queueWords.buffer });
    this.cells.begin(bytesMax * 0.5);
    const lanes = new Lanes(this.cells, 20, this.patience);
    lanes.use(this, this.nowMs);
    const options = { id: 0, framesMax: 4096, bytesMax, colour, epoch: 1, highWater: 0.5, originMs: 0, settleMs: 3, clockMs: () => this.nowMs, lanes };
    this.pump = new Pump(options, this.#source, this.#sink(), this.#counters(), new Intake(2048), new Meter(), (fact) => this.facts.push(fact));
  }

  // -------------------------------------------------------------------------- what VMs and bridge do

  send(nic: number, colour: number, length = 100): LaneFrame {
    const frame = { id: this.#byId.length, nic, colour, length };
    this.#byId.push(frame);
    this.#in[nic]!++;
    this.#sent[colour & 63]!++;
    const lane = colour & (LANES - 1);
    const fits = this.cells.used + length + FRAME_COST <= this.#queueWords[QUEUE_LAYOUT.bytesMax >> 2]!;
    const fills = this.cells.state(lane) === LANE_STATE.filling && this.cells.colour(lane) === (colour | 0);
    if (!fills || this.cells.isOutOfRoom(lane) || !fits) {
      if (fills && !fits) this.#words[this.#at(lane, LANE_LAYOUT.full)] = OUT_OF_ROOM;
      this.#wire.push({ frame, lead: 0 });
      return frame;
    }
    if (this.cells.low(lane, 'in') === this.cells.low(lane, 'base')) this.#wire.push({ frame: { ...frame, id: -1 }, lead: LEAD_NOTICE });
    this.#add(lane, 'in', 1);
    this.#add(lane, 'inBytes', length);
    this.#queueWords[QUEUE_LAYOUT.bytesIn >> 2]! += length + FRAME_COST;
    this.#queues[lane]!.push(frame);
    this.#dequeue(lane);
    return frame;
  }
  /** Up to `count` frames that came out of gates go on. */
  move(count: number): void {
    for (const { lane, what, round } of this.#transit.splice(0, count)) {
      if (what === 'filler') continue;
      if (what !== 'marker') this.#alight(what, lane);
      else if (round) this.#add(lane, 'markers', 1);
      else this.#transit.push({ lane, what, round: true });
    }
  }
  /** A block with what is on its way to the ring. */
  deliver(count = Infinity): void {
    const block = this.#wire.splice(0, Math.min(count, BLOCK_FRAMES));
    if (block.length === 0) return;
    this.#source.fill(block.map(({ frame, lead }) => ({ id: Math.max(0, frame.id), stamp: packStamp(CLASS_HELD, frame.nic, lead, frame.colour) | 0, length: frame.length })));
  }
  /** Another tool opens a gate: `count` frames come out of it. */
  leak(lane: number, count: number): void {
    this.#tokens[lane]! += count;
    this.#dequeue(lane);
  }
  /** All that is on its way arrives. */
  hurry(): void {
    while (this.#transit.length + this.#wire.length > 0) {
      this.move(1000);
      this.deliver();
    }
  }
  /** A frame that has come out of a gate is lost on its way. */
  drop(): void {
    const at = this.#transit.findIndex(({ what }) => typeof what !== 'string');
    const [moving] = at < 0 ? [] : this.#transit.splice(at, 1);
    if (moving !== undefined && typeof moving.what !== 'string') this.#lose(moving.what);
  }
  /** A marker is lost on its way. */
  dropMarker(): boolean {
    const at = this.#transit.findIndex(({ what }) => what === 'marker');
    if (at >= 0) this.#transit.splice(at, 1);
    return at >= 0;
  }
  breathe(ms = 0): number {
    this.nowMs += ms;
    return this.pump.breath({ nowMs: this.nowMs, wallMs: this.nowMs });
  }
  /** Until nothing moves any more. */
  rest(): void {
    for (let quiet = 0; quiet < 60; quiet++) {
      const before = this.left.length + this.#transit.length + this.#wire.length;
      this.move(1000);
      this.deliver();
      this.breathe(1);
      if (this.left.length + this.#transit.length + this.#wire.length !== before) quiet = 0;
    }
  }
  get inLanes(): number {
    return this.#queues.flat().filter((what) => typeof what !== 'string').length;
  }

  // ---------------------------------------------------------------------------------------- gates

  setUp(): void {
    if (this.refuses) throw new Refused('no queues');
    for (const queue of this.#queues) for (const what of queue.splice(0)) if (typeof what !== 'string') this.#lose(what);
    this.#tokens.fill(0);
  }
  waitedMs(): number {
    const waited = this.#waitedMs;
    this.#waitedMs = 0;
    return waited;
  }
  open(lane: number): void {
    this.#change(lane, this.batch);
  }
  shut(lane: number): void {
    this.#change(lane, 0);
  }
  push(lane: number): void {
    this.#queues[lane]!.push('filler');
    this.#tokens[lane]!++; // of no frame's
    this.#dequeue(lane);
  }
  mark(lane: number): void {
    this.#queues[lane]!.push('marker');
    this.#tokens[lane]!++;
    this.#dequeue(lane);
  }
  close(): void {
    this.#tokens.fill(0);
  }
  #change(lane: number, tokens: number): void {
    if (this.refuses) throw new Refused('no such queue');
    this.#waitedMs = Math.max(this.#waitedMs, this.waits);
    this.#tokens[lane] = tokens;
  }
  #dequeue(lane: number): void {
    const queue = this.#queues[lane]!;
    if (this.swallows) for (const what of queue.splice(0)) if (typeof what !== 'string') this.#lose(what);
    while (this.#tokens[lane]! > 0 && queue.length > 0) {
      this.#tokens[lane]!--;
      this.#transit.push({ lane, what: queue.shift()!, round: false });
    }
  }
  #alight(frame: LaneFrame, lane: number): void {
    this.#queueWords[QUEUE_LAYOUT.bytesOut >> 2]! += frame.length + FRAME_COST;
    const leaves = this.cells.state(lane) === LANE_STATE.open && this.cells.colour(lane) === (frame.colour | 0) && frame.colour <= this.commit;
    this.#add(lane, leaves ? 'out' : 'spilled', 1);
    this.#add(lane, leaves ? 'outBytes' : 'spilledBytes', frame.length);
    if (leaves) this.#leave(frame);
    else this.#wire.push({ frame, lead: LEAD_SPILLED });
  }

  // --------------------------------------------------------------------------------------- plumbing

  #leave(frame: LaneFrame): void {
    this.#out[frame.nic]!++;
    this.left.push(frame);
  }
  #lose(frame: LaneFrame): void {
    this.lost.push(frame);
  }
  #sink(): FrameSink {
    return {
      batchMax: 16,
      send: (table: FrameTable, batch: Int32Array, count: number): number => {
        for (let i = 0; i < count; i++) this.#leave(this.#byId[this.#source.identify(table.offset[batch[i]!]!, table.length[batch[i]!]!)]!);
        return count;
      },
    };
  }
  #counters(): GroupCells {
    const missing = (nic: number): number => this.#in[nic]! - this.#out[nic]! - this.#gone[nic]!;
    return {
      heldIn: (residue) => this.#sent[residue]!,
      heldMissing: missing,
      earlyMissing: () => 0,
      trace: (nic) => this.#in[nic]! * 31 + this.#out[nic]!,
      addGone: (nic, held) => void (this.#gone[nic]! += held),
      nics: (nics) => {
        nics.set([1, 2, 3]);
        return 3;
      },
    };
  }
  #at(lane: number, offset: number): number {
    return (lane * LANE_LAYOUT.size + offset) >> 2;
  }
  #add(lane: number, count: keyof typeof LANE_LAYOUT, by: number): void {
    this.#words[this.#at(lane, LANE_LAYOUT[count])]! += by;
  }
}
