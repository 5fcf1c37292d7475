/**
 * What a group would have held, and for how long, had it been protected during a capture.
 *
 *        epoch 1        epoch 2        epoch 3
 *   |--x-----x--x--|-----x--------|--------------|--->  capture's own time, first frame = 0
 *      └─────┴──┴── held ───► released at the end of the epoch + commit delay
 *                  :::::|       delay of a frame = release - arrival
 *
 * The clock is ideal: cuts exactly at multiples of the epoch, every commit exactly `commitDelay`
 * after its cut. All members are cut together, so nothing is early or late. A frame's release is
 * known when it arrives; so no frame is kept, only sums by epoch.
 *
 * Bounds: IN_FLIGHT_MAX epochs in flight (asked for by the caller), EPOCH_ROWS_MAX epochs reported
 * one by one (all are in the totals), DELAY_BUCKETS steps between shortest and longest delay.
 * Captures are not always in order: a frame older than the one before it counts as of its time.
 */
export const IN_FLIGHT_MAX = 1024;
const EPOCH_ROWS_MAX = 50_000;
const DELAY_BUCKETS = 2000;

export const REPLAY_VERDICTS = ['pass', 'intra', 'held', 'split', 'drop'] as const;
export type ReplayVerdict = (typeof REPLAY_VERDICTS)[number];

/** What is to become of one frame. `from`: the member that sent it; undefined = an outsider. */
export interface Classified {
  readonly verdict: ReplayVerdict;
  readonly from: string | undefined;
}
export type Classify = (frame: Uint8Array) => Classified;

export interface ReplayClock {
  readonly epochMs: number;
  readonly commitDelayMs: number;
}
export interface Delay {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}
export interface EpochRow {
  readonly epoch: number;
  readonly frames: number;
  readonly bytes: number;
  /** Since the first frame of the capture. */
  readonly releasedMs: number;
  readonly delayMs: Delay;
}
export interface ReplayReport {
  readonly frames: number;
  readonly bytes: number;
  readonly lengthMs: number;
  readonly verdicts: Readonly<Record<ReplayVerdict, { readonly frames: number; readonly bytes: number }>>;
  readonly heldFrames: number;
  readonly heldBytes: number;
  readonly delayMs: Delay;
  /** Most bytes held at one moment, and when: the least that hold.bytes must be. */
  readonly peak: { readonly bytes: number; readonly frames: number; readonly atMs: number };
  readonly epochsWithOutput: number;
  readonly epochs: readonly EpochRow[];
  readonly epochsOmitted: number;
  readonly outOfOrder: number;
}
/** One frame, for --verbose. */
export interface FrameLine {
  readonly frame: number;
  readonly atMs: number;
  readonly verdict: ReplayVerdict;
  readonly from: string | undefined;
  readonly bytes: number;
  readonly epoch: number;
  /** undefined = not held. */
  readonly releasedMs: number | undefined;
}

/** Linear buckets between the shortest possible delay and the longest; quantiles are upper edges. */
class DelayHistogram {
  private readonly counts = new Uint32Array(DELAY_BUCKETS);
  private readonly clock: ReplayClock;
  private count = 0;
  private maxMs = 0;

  constructor(clock: ReplayClock) {
    this.clock = clock;
  }

  add(delayMs: number): void {
    const share = (delayMs - this.clock.commitDelayMs) / this.clock.epochMs;
    const bucket = Math.min(DELAY_BUCKETS - 1, Math.max(0, Math.floor(share * DELAY_BUCKETS)));
    this.counts[bucket] = (this.counts[bucket] ?? 0) + 1;
    this.count += 1;
    this.maxMs = Math.max(this.maxMs, delayMs);
  }

  clear(): void {
    this.counts.fill(0);
    this.count = 0;
    this.maxMs = 0;
  }

  delay(): Delay {
    return { p50: this.quantile(0.5), p99: this.quantile(0.99), max: this.maxMs };
  }

  private quantile(share: number): number {
    let left = Math.ceil(share * this.count);
    if (left === 0) return 0;
    const bucket = this.counts.findIndex((count) => (left -= count) <= 0);
    return Math.min(this.maxMs, this.clock.commitDelayMs + ((bucket + 1) / DELAY_BUCKETS) * this.clock.epochMs);
  }
}

interface Waiting {
  readonly releasedMs: number;
  frames: number;
  bytes: number;
}

export class ReplayModel {
  private readonly clock: ReplayClock;
  private readonly classify: Classify;
  private readonly total: DelayHistogram;
  private readonly inEpoch: DelayHistogram;
  private readonly verdicts: Record<ReplayVerdict, { frames: number; bytes: number }>;
  private readonly rows: EpochRow[] = [];
  private waiting: Waiting[] = [];
  private epoch = 0;
  private firstUs: number | undefined;
  private lastUs = 0;
  private frames = 0;
  private bytes = 0;
  private outOfOrder = 0;
  private epochsWithOutput = 0;
  private nowHeld = { frames: 0, bytes: 0 };
  private peak = { bytes: 0, frames: 0, atMs: 0 };

  constructor(clock: ReplayClock, classify: Classify) {
    if (!(clock.epochMs > 0) || !(clock.commitDelayMs >= 0)) throw new RangeError('epoch must be more than 0, commit delay at least 0');
    if (clock.commitDelayMs / clock.epochMs > IN_FLIGHT_MAX - 2) throw new RangeError(`more than ${IN_FLIGHT_MAX} epochs would be in flight: lengthen the epoch or shorten the commit delay`);
    this.clock = clock;
    this.classify = classify;
    this.total = new DelayHistogram(clock);
    this.inEpoch = new DelayHistogram(clock);
    this.verdicts = { pass: { frames: 0, bytes: 0 }, intra: { frames: 0, bytes: 0 }, held: { frames: 0, bytes: 0 }, split: { frames: 0, bytes: 0 }, drop: { frames: 0, bytes: 0 } };
  }

  /** timeUs: microseconds since 1970. The frame's bytes are not kept. */
  add(timeUs: number, frame: Uint8Array, wireBytes: number): FrameLine {
    const atMs = this.timeMs(timeUs);
    this.releaseUntil(atMs);
    const epoch = Math.floor(atMs / this.clock.epochMs) + 1;
    const { verdict, from } = this.classify(frame);
    this.frames += 1;
    this.bytes += wireBytes;
    this.verdicts[verdict].frames += 1;
    this.verdicts[verdict].bytes += wireBytes;
    const isHeld = verdict === 'held' || verdict === 'split';
    const releasedMs = isHeld ? this.hold(epoch, atMs, wireBytes) : undefined;
    return { frame: this.frames, atMs, verdict, from, bytes: wireBytes, epoch, releasedMs };
  }

  finish(): ReplayReport {
    this.closeEpoch();
    return {
      frames: this.frames,
      bytes: this.bytes,
      lengthMs: this.firstUs === undefined ? 0 : (this.lastUs - this.firstUs) / 1000,
      verdicts: this.verdicts,
      heldFrames: this.verdicts.held.frames + this.verdicts.split.frames,
      heldBytes: this.verdicts.held.bytes + this.verdicts.split.bytes,
      delayMs: this.total.delay(),
      peak: this.peak,
      epochsWithOutput: this.epochsWithOutput,
      epochs: this.rows,
      epochsOmitted: this.epochsWithOutput - this.rows.length,
      outOfOrder: this.outOfOrder,
    };
  }

  private timeMs(timeUs: number): number {
    this.firstUs ??= timeUs;
    if (timeUs < this.lastUs) this.outOfOrder += 1;
    this.lastUs = Math.max(this.lastUs, timeUs);
    return (this.lastUs - this.firstUs) / 1000;
  }

  private hold(epoch: number, atMs: number, bytes: number): number {
    const releasedMs = epoch * this.clock.epochMs + this.clock.commitDelayMs;
    if (epoch !== this.epoch) {
      this.closeEpoch();
      this.epoch = epoch;
      this.waiting.push({ releasedMs, frames: 0, bytes: 0 });
    }
    const last = this.waiting.at(-1);
    if (last === undefined) throw new Error(`epoch ${epoch} was released before it ended`);
    last.frames += 1;
    last.bytes += bytes;
    this.total.add(releasedMs - atMs);
    this.inEpoch.add(releasedMs - atMs);
    this.nowHeld = { frames: this.nowHeld.frames + 1, bytes: this.nowHeld.bytes + bytes };
    if (this.nowHeld.bytes > this.peak.bytes) this.peak = { ...this.nowHeld, atMs };
    return releasedMs;
  }

  private releaseUntil(nowMs: number): void {
    while (this.waiting[0] !== undefined && this.waiting[0].releasedMs <= nowMs) {
      const { frames, bytes } = this.waiting[0];
      this.nowHeld = { frames: this.nowHeld.frames - frames, bytes: this.nowHeld.bytes - bytes };
      if (this.waiting.length === 1) this.closeEpoch();
      this.waiting.shift();
    }
  }

  /** The row of the epoch being filled; again only after another was begun. */
  private closeEpoch(): void {
    const last = this.waiting.at(-1);
    if (last === undefined || this.epoch === 0) return;
    this.epochsWithOutput += 1;
    if (this.rows.length < EPOCH_ROWS_MAX) {
      this.rows.push({ epoch: this.epoch, frames: last.frames, bytes: last.bytes, releasedMs: last.releasedMs, delayMs: this.inEpoch.delay() });
    }
    this.inEpoch.clear();
    this.epoch = 0;
  }
}
