/**
 * The reference engine: it has no VMs, it cuts and commits by the clock, as an engine with VMs
 * would. What it shows of the API (order, repeats, recovery) is what a real engine has to do.
 *
 *   cut lane     |cut 1   |cut 2   |cut 3   |cut 4          every interval, one call at a time
 *                 └─ delay ─┐ └─ delay ─┐                   "the checkpoint is on its way"
 *   commit lane             |commit 1   |commit 2           oldest due first, several in flight
 *
 *   on output:   cut when `output-pending` says that the open epoch has something to say, and the
 *                checkpoint before is durable (Kemari's rule); the interval, if given, is then
 *                the longest epoch.
 *
 * Generation and open epoch follow the replies, and trouble is outlived (session.ts). What is no
 * longer sealed after a rollback is forgotten, never committed.
 *
 * Bound: IN_FLIGHT_MAX epochs between cut and commit; at the bound a beat is skipped and counted.
 */
import type { CommandReply } from '../../proxy/api/contract.ts';
import type { SluiceClient } from '../client.ts';
import { Latency } from './latency.ts';
import type { LatencySummary } from './latency.ts';
import { Pace } from './pace.ts';
import { GroupSession } from './session.ts';
import { Wakeup } from './wakeup.ts';

const IN_FLIGHT_MAX = 512;

export interface TickerOptions {
  readonly group: string;
  /** undefined: no timer, only output cuts. */
  readonly intervalMs: number | undefined;
  readonly commitDelayMs: number;
  readonly onOutput: boolean;
  /** End after so many cuts. */
  readonly epochs: number | undefined;
  /** Leave out every n-th ack or commit (but the last): a lossy backup, for tests. 0 = none. */
  readonly dropEvery: number;
  readonly follow: boolean;
  readonly unreachableMaxMs: number;
}

export interface TickerSummary {
  readonly group: string;
  readonly generation: number;
  readonly epochs: number;
  readonly commits: number;
  readonly droppedAcks: number;
  readonly skipped: number;
  readonly missedBeats: number;
  readonly resyncs: number;
  readonly open: number;
  readonly committed: number;
  readonly released: number;
  readonly heldFrames: number;
  readonly inFlight: number;
  readonly cutMs: LatencySummary;
  readonly commitMs: LatencySummary;
}

type TickerClient = Pick<SluiceClient, 'group' | 'cut' | 'commit' | 'ack' | 'events'>;
interface InFlight {
  readonly epoch: number;
  readonly dueMs: number;
}

export class Ticker {
  private readonly client: TickerClient;
  private readonly options: TickerOptions;
  private readonly session: GroupSession;
  private readonly cutWake = new Wakeup();
  private readonly commitWake = new Wakeup();
  private readonly cutLatency = new Latency();
  private readonly commitLatency = new Latency();
  private pace: Pace | undefined;
  private inFlight: InFlight[] = [];
  private outputPending = false;
  private stopping = false;
  private cutting = true;
  private failed = false;
  private cuts = 0;
  private commits = 0;
  private sends = 0;
  private droppedAcks = 0;
  private skipped = 0;

  constructor(client: TickerClient, options: TickerOptions) {
    if (options.intervalMs === undefined && !options.onOutput) throw new RangeError('an interval or onOutput is needed');
    this.client = client;
    this.options = options;
    this.session = new GroupSession(client, { group: options.group, follow: options.follow, troubleMaxMs: options.unreachableMaxMs });
  }

  /** Runs until the signal, the number of epochs, or an error; commits what is in flight before it returns. */
  async run(signal: AbortSignal): Promise<TickerSummary> {
    await this.session.begin();
    const stop = (): void => this.stop();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    const events = new AbortController();
    const lanes = [this.lane(() => this.cutLane()), this.lane(() => this.commitLane())];
    const listening = this.options.onOutput ? this.lane(() => this.outputLane(events.signal)) : Promise.resolve();
    try {
      await Promise.all(lanes);
    } finally {
      await Promise.allSettled(lanes);
      events.abort();
      await listening.catch(() => undefined);
      signal.removeEventListener('abort', stop);
    }
    await listening;
    return this.summary();
  }

  summary(): TickerSummary {
    const now = this.session.maybeNow;
    return {
      group: this.options.group,
      generation: now?.generation ?? 0,
      epochs: this.cuts,
      commits: this.commits,
      droppedAcks: this.droppedAcks,
      skipped: this.skipped + this.session.skipped,
      missedBeats: this.pace?.missed ?? 0,
      resyncs: this.session.resyncs,
      open: now?.open ?? 0,
      committed: now?.committed ?? 0,
      released: now?.released ?? 0,
      heldFrames: now?.held.frames ?? 0,
      inFlight: this.inFlight.length,
      cutMs: this.cutLatency.summary(),
      commitMs: this.commitLatency.summary(),
    };
  }

  private stop(): void {
    this.stopping = true;
    this.cutWake.wake();
  }

  /** A lane that fails ends the others; its error is run's. */
  private async lane(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.failed = true;
      this.stop();
      this.commitWake.wake();
      throw error;
    }
  }

  private async cutLane(): Promise<void> {
    const { intervalMs, epochs } = this.options;
    this.pace = intervalMs === undefined ? undefined : new Pace(performance.now(), intervalMs);
    while (!this.failed && this.cuts < (epochs ?? Infinity) && (await this.beat())) {
      if (this.inFlight.length >= IN_FLIGHT_MAX) this.skipped += 1;
      else await this.cutOnce();
    }
    this.cutting = false;
    this.commitWake.wake();
  }

  /** Waits for the next reason to cut; false when it is time to stop. */
  private async beat(): Promise<boolean> {
    const dueMs = this.pace?.nextMs(performance.now()) ?? Infinity;
    while (!this.stopping) {
      if (this.outputPending && this.inFlight.length === 0) break;
      const leftMs = dueMs - performance.now();
      if (leftMs <= 0) break;
      await this.cutWake.wait(leftMs);
    }
    this.outputPending = false;
    return !this.stopping;
  }

  private async cutOnce(): Promise<void> {
    const { generation, open } = this.session.now;
    const attempt = await this.session.attempt(() => this.client.cut(this.options.group, { generation, epoch: open }));
    if (attempt === undefined) return this.forgetUnsealed();
    if (attempt.tookMs !== undefined) this.cutLatency.add(attempt.tookMs);
    this.cuts += 1;
    this.inFlight.push({ epoch: open, dueMs: performance.now() + this.options.commitDelayMs });
    this.commitWake.wake();
  }

  /** After a rollback by someone else: those epochs are of an execution that is gone. */
  private forgetUnsealed(): void {
    this.inFlight = this.inFlight.filter(({ epoch }) => epoch <= this.session.now.sealed);
  }

  private async commitLane(): Promise<void> {
    while (!this.failed && (this.cutting || this.inFlight.length > 0)) {
      const next = this.inFlight[0];
      const leftMs = next === undefined ? Infinity : next.dueMs - performance.now();
      if (leftMs > 0) {
        await this.commitWake.wait(leftMs);
        continue;
      }
      await this.commitDue(performance.now());
      this.cutWake.wake();
    }
  }

  /** All that is due goes in one call: a commit to e covers every epoch before it. */
  private async commitDue(nowMs: number): Promise<void> {
    const due = this.inFlight.filter(({ dueMs }) => dueMs <= nowMs);
    this.inFlight = this.inFlight.slice(due.length);
    const epoch = due.at(-1)?.epoch;
    if (epoch === undefined) return;
    this.sends += 1;
    const last = !this.cutting && this.inFlight.length === 0;
    if (this.options.dropEvery > 0 && this.sends % this.options.dropEvery === 0 && !last) {
      this.droppedAcks += 1;
      return;
    }
    const body = { generation: this.session.now.generation, epoch };
    const { group } = this.options;
    const send = (): Promise<CommandReply> => (this.session.mode === 'acks' ? this.client.ack(group, body) : this.client.commit(group, body));
    const attempt = await this.session.attempt(send);
    if (attempt === undefined) return this.forgetUnsealed();
    if (attempt.tookMs !== undefined) this.commitLatency.add(attempt.tookMs);
    this.commits += 1;
  }

  private async outputLane(signal: AbortSignal): Promise<void> {
    const pending = (): void => {
      this.outputPending = true;
      this.cutWake.wake();
    };
    // An event may have been missed while nobody listened: one cut more does no harm.
    const follow = this.client.events({ group: this.options.group, signal, onConnected: pending });
    for await (const { event } of follow) {
      if (event.type === 'gap' || (event.type === 'output-pending' && (event.epoch ?? 0) >= this.session.now.open)) pending();
    }
  }
}
