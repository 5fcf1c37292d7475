/**
 * The QEMU engine: keeps a group of running guests protected, and takes over when they die.
 *
 *     find ─► base ─► protect ─►┌── life ──────────────────────────────────┐
 *                               │ checkpoints   cadence.ts, checkpoint.ts  │
 *                               │ inbound       inbound.ts                 │
 *                               │ commits       commits.ts                 │── signal ─► last
 *                               │ standbys      standbys.ts                │   checkpoint, end
 *                               │ events        output-pending, high-water │
 *                               │ watch         watcher.ts                 │
 *                               └──────────────────────────────────────────┘
 *                                 ▲               │ a guest is dead
 *                                 └── takeover ◄──┘   the next life, one generation on, sides changed
 *
 * One checkpoint is on its way at a time: the next begins when the last is durable and settled.
 * Commits may lag behind (the delay of a far backup). After a takeover every member keeps its base
 * image: only standbys are made anew, and of their RAM only what differs is copied. They are made
 * STANDBY_LATER_MS later: to launch a QEMU costs a core for some hundred ms, which the group needs.
 *
 * A takeover does not wait for what the dead life was doing, but for a checkpoint that can no longer
 * be given up (checkpoint.ts, `seal`), and for all of it where a standby has to be filled.
 *
 * An engine that dies leaves guests, standbys, Sluice and the store as they are: the next one goes
 * on from the newest durable checkpoint, which the store has of all members or of none.
 */
import type { SluiceClient } from '../../client.ts';
import { readdirSync } from 'node:fs';
import { setPriority } from 'node:os';
import { Latency } from '../latency.ts';
import type { LatencySummary } from '../latency.ts';
import { GroupSession } from '../session.ts';
import { Wakeup } from '../wakeup.ts';
import { findRunning, isWhereHeld, maybeGroup, mustBeProtected, protectUnits, takeOn } from './begin.ts';
import type { Found } from './begin.ts';
import { Cadence } from './cadence.ts';
import type { CadenceOptions } from './cadence.ts';
import { capture, ship } from './checkpoint.ts';
import type { Captured } from './checkpoint.ts';
import { Commits } from './commits.ts';
import type { EngineEvent, Tell } from './events.ts';
import type { GuestGroup } from './guest.ts';
import { heirFromStore, heirOf, isHot, mustCheckpoint } from './heirs.ts';
import { Inbound, plainMac } from './inbound.ts';
import { kill, processOf } from './machine.ts';
import { QmpClosed, QmpRefused } from './qmp.ts';
import { endStandbys, keepStandbys } from './standbys.ts';
import type { Store } from './store.ts';
import { takeOver } from './takeover.ts';
import type { Heir, Sources, TakenOver } from './takeover.ts';
import type { Unit } from './unit.ts';
import { watch } from './watcher.ts';
import type { Death, HeartbeatOptions } from './watcher.ts';

const STANDBY_LATER_MS = 1000;
/** Guests stand still while the engine waits for a core. */
const NICE = -10;

export interface QemuOptions extends CadenceOptions {
  readonly guests: GuestGroup;
  readonly commitDelayMs: number;
  readonly heartbeat: HeartbeatOptions;
  readonly standby: boolean;
  /** What came from outside since the checkpoint is given to the new sides. */
  readonly replay: boolean;
  readonly troubleMaxMs: number;
  /** End after so many durable checkpoints. */
  readonly checkpoints: number | undefined;
}

export interface QemuSummary {
  readonly group: string;
  readonly generation: number;
  readonly checkpoints: number;
  readonly skipped: number;
  readonly takeovers: number;
  readonly durable: number;
  readonly committed: number;
  readonly standbysReady: number;
  readonly stopMs: LatencySummary;
  readonly shipMs: LatencySummary;
}

export class QemuEngine {
  private readonly client: SluiceClient;
  private readonly store: Store;
  private readonly options: QemuOptions;
  private readonly tellOut: Tell;
  private units: Unit[] = [];
  private session: GroupSession;
  private cadence: Cadence;
  private readonly wakeup = new Wakeup();
  /** A capture is not settled, not even by the one after it: shadows may be ahead of the store. */
  private isAhead = false;
  private dying = false;
  private inbound: Inbound | undefined;
  /** A checkpoint that cannot be given up any more, until it is settled. */
  private sealing: Promise<unknown> = Promise.resolve();
  private readonly stops = new Latency();
  private readonly ships = new Latency();
  private checkpoints = 0;
  private skipped = 0;
  private takeovers = 0;

  constructor(client: SluiceClient, store: Store, options: QemuOptions, tell: Tell) {
    this.client = client;
    this.store = store;
    this.options = options;
    this.tellOut = tell;
    this.cadence = new Cadence(options);
    this.session = this.newSession();
  }

  /** Until the signal, the number of checkpoints, or an error. */
  async run(signal: AbortSignal): Promise<QemuSummary> {
    try {
      this.prepare();
      await this.begin();
      for (;;) {
        const { death, over } = await this.life(signal);
        if (death === undefined || death.byItself) await over;
        if (death === undefined) return this.summary();
        if (death.byItself) throw new Error(`guest ${death.member} shut itself down: the group is no longer whole`);
        await this.takeover(death, over);
      }
    } finally {
      this.inbound?.close();
      endStandbys(this.units);
      await Promise.all(this.units.map((unit) => unit.close()));
    }
  }

  summary(): QemuSummary {
    return {
      group: this.options.guests.group,
      generation: this.session.maybeNow?.generation ?? 0,
      checkpoints: this.checkpoints,
      skipped: this.skipped,
      takeovers: this.takeovers,
      durable: this.store.newest?.epoch ?? 0,
      committed: this.session.maybeNow?.committed ?? 0,
      standbysReady: this.units.filter(({ standby }) => standby?.ready === true).length,
      stopMs: this.stops.summary(),
      shipMs: this.ships.summary(),
    };
  }

  // ------------------------------------------------------------------------------------ begin

  /** What helps where it is allowed. */
  private prepare(): void {
    const helped = (what: 'inbound' | 'priority', help: () => void): void => {
      try {
        help();
      } catch (error) {
        this.tell({ event: 'without', what, why: error instanceof Error ? error.message : String(error) });
      }
    };
    helped('priority', () => {
      for (const thread of readdirSync('/proc/self/task')) setPriority(Number(thread), NICE); // the pool's too: syncs wait for one
    });
    if (this.options.replay) helped('inbound', () => (this.inbound = Inbound.open(this.options.guests.guests)));
  }

  private async begin(): Promise<void> {
    const { group, guests } = this.options.guests;
    const found = (await Promise.all(guests.map(findRunning))).filter((one) => one !== undefined);
    const view = await maybeGroup(this.client, group);
    const running = found.filter((one) => isWhereHeld(one, view));
    if (running.length < guests.length) {
      for (const { machine } of found) machine.close();
      return this.beginFromStore(running);
    }
    try {
      mustBeProtected(running, this.store, view);
    } catch (error) {
      for (const { machine } of found) machine.close();
      throw error;
    }
    this.units = await Promise.all(running.map((one) => takeOn(one, this.store, this.tell)));
    await protectUnits(this.client, group, this.units, this.tell);
    await this.session.begin();
    await this.commitWhatIsDurable();
  }

  /** A checkpoint that became durable just before the engine before us died. */
  private async commitWhatIsDurable(): Promise<void> {
    const { generation, committed, sealed } = this.session.now;
    const newest = this.store.newest;
    if (newest?.generation !== generation || newest.epoch <= committed || newest.epoch > sealed) return;
    const commits = new Commits(this.client, this.session, this.options.guests.group, 0);
    commits.durable(newest.epoch);
    commits.end(false);
    await commits.run((epoch) => this.tell({ event: 'committed', epoch }));
  }

  /** Not all guests run: the group died while no engine watched, or in a takeover that was not finished. */
  private async beginFromStore(running: readonly Found[]): Promise<void> {
    const { group, guests } = this.options.guests;
    const dead = guests.filter(({ name }) => !running.some(({ spec }) => spec.name === name)).map(({ name }) => name);
    const view = await maybeGroup(this.client, group);
    if (view?.phase !== 'protected') throw new Error(`${dead.join(', ')} of group ${group} do not run, and the group is not protected: start them first`);
    const seenMs = performance.now();
    for (const member of dead) this.tell({ event: 'dead', member, why: 'no process of it runs' });
    const newest = mustCheckpoint(this.store, view.generation);
    const sources = this.sourcesOf(guests.map(({ name }) => name));
    sources(); // refuses before anything is ended
    const heirs = guests.map((spec) => heirFromStore(spec, view, sources));
    const taken = await this.goOn(view.generation + 1, newest.epoch, heirs, sources, seenMs);
    const found = heirs.flatMap(({ spec, to }): Found[] => {
      const machine = taken.machines.get(spec.name);
      return machine === undefined ? [] : [{ spec, side: to, machine }];
    });
    this.units = await Promise.all(found.map((one) => takeOn(one, this.store, this.tell)));
    await this.session.begin();
  }

  // ------------------------------------------------------------------------------------- life

  /** `over`: nothing of it is under way any more. Rejects with what ended it, where that was no death. */
  private async life(signal: AbortSignal): Promise<{ death: Death | undefined; over: Promise<void> }> {
    const { group } = this.options.guests;
    const over = new AbortController();
    const ends = AbortSignal.any([signal, over.signal]);
    this.dying = false;
    const commits = new Commits(this.client, this.session, group, this.options.commitDelayMs);
    ends.addEventListener('abort', () => this.wakeup.wake(), { once: true });
    const lane = (work: Promise<void>): Promise<void> => work.catch((error: unknown) => {
      over.abort();
      commits.end(true);
      throw error;
    });
    const lanes = [
      lane(this.checkpointLane(commits, ends, over)),
      lane(commits.run((epoch) => this.tell({ event: 'committed', epoch }))),
      lane(this.eventLane(ends)),
      ...(this.options.standby ? [lane(keepStandbys(this.units, () => !this.isAhead, this.tell, ends, this.takeovers > 0 ? STANDBY_LATER_MS : 0))] : []),
    ];
    const death = await watch(this.units, this.options.heartbeat, ends);
    if (death !== undefined) {
      this.dying = true;
      this.tell({ event: 'dead', member: death.member, why: death.why });
      // Who ended of its own will is not taken over: the others need not end for it.
      if (!death.byItself) for (const unit of this.units) kill(unit.running);
      over.abort();
      commits.end(true);
    }
    const ended = Promise.allSettled(lanes).then((done) => {
      const failed = done.find((one) => one.status === 'rejected');
      if (failed !== undefined && death === undefined) throw failed.reason;
    });
    return { death, over: ended };
  }

  private async checkpointLane(commits: Commits, signal: AbortSignal, over: AbortController): Promise<void> {
    const most = this.options.checkpoints ?? Infinity;
    while (await this.due(signal)) {
      await this.checkpoint(commits);
      if (this.checkpoints >= most) break;
    }
    if (!this.dying && this.checkpoints < most) await this.checkpoint(commits);
    commits.end(this.dying);
    over.abort();
  }

  /** Waits for the next checkpoint's time; false when it is time to stop. */
  private async due(signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      const leftMs = this.cadence.dueMs() - performance.now();
      if (leftMs <= 0) return true;
      await this.wakeup.wait(leftMs);
    }
    return false;
  }

  private async checkpoint(commits: Commits): Promise<void> {
    const number = this.checkpoints + this.skipped + 1;
    const phase = (name: Extract<EngineEvent, { event: 'phase' }>['phase']): void => this.tell({ event: 'phase', phase: name, number });
    this.cadence.begin(performance.now());
    this.isAhead = true;
    const mark = this.inbound?.mark() ?? 0;
    try {
      const captured = await capture(this.units, { cut: () => this.cut(), phase });
      const shipFromMs = performance.now();
      const sealing = (done: Promise<unknown>): void => {
        this.sealing = done.then(() => this.inbound?.forget(mark), () => undefined); // its failure is ship's
      };
      const manifest = await ship(this.units, captured, this.store, { phase, isGivenUp: () => this.dying, sealing });
      if (manifest === undefined) return;
      this.isAhead = false;
      commits.durable(captured.epoch);
      this.report(captured, manifest.members, performance.now() - shipFromMs);
      for (const { base } of this.units) this.store.seeding.delete(base);
      if (this.store.shouldPrune && !this.dying) await this.store.prune();
    } catch (error) {
      await this.skip(error);
    }
  }

  /** Seals the open epoch of the session's group. */
  private async cut(): Promise<{ epoch: number; generation: number }> {
    const { generation, open: epoch } = this.session.now;
    await this.session.once(() => this.client.cut(this.options.guests.group, { generation, epoch }));
    return { epoch, generation };
  }

  /** What passes is told; what does not is thrown: the store's troubles, and those of the group. */
  private async skip(error: unknown): Promise<void> {
    if (!(error instanceof Error)) throw error;
    this.skipped += 1;
    this.tell({ event: 'skipped', why: error.message });
    if (this.dying || error instanceof QmpClosed || error instanceof QmpRefused) return;
    await this.session.recoverFrom(error);
  }

  private report(captured: Captured, members: Extract<EngineEvent, { event: 'checkpoint' }>['members'], shipMs: number): void {
    const { epoch, generation, stopMs, saveMs, compareMs, cutMs } = captured;
    this.checkpoints += 1;
    this.stops.add(stopMs);
    this.ships.add(shipMs);
    const told = Object.entries(members).map(([name, { pages, bytes }]) => [name, { pages, bytes }] as const);
    this.tell({ event: 'checkpoint', epoch, generation, stopMs, saveMs, compareMs, cutMs, shipMs, members: Object.fromEntries(told) });
  }

  private async eventLane(signal: AbortSignal): Promise<void> {
    const pending = (): void => {
      this.cadence.outputPending();
      this.wakeup.wake();
    };
    // What was told while nobody listened is still held.
    const connected = (): void => void this.client.group(this.options.guests.group).then(({ held }) => held.frames > 0 && pending(), pending);
    for await (const { event } of this.client.events({ group: this.options.guests.group, signal, onConnected: connected })) {
      if (event.type === 'high-water') this.cadence.highWater();
      if (event.type === 'gap' || event.type === 'high-water' || (event.type === 'output-pending' && (event.epoch ?? 0) >= this.session.now.open)) pending();
    }
  }

  // --------------------------------------------------------------------------------- takeover

  private async takeover(death: Death, over: Promise<void>): Promise<void> {
    for (const { machine } of this.units) machine.close();
    await this.sealing;
    const newest = mustCheckpoint(this.store, this.session.now.generation);
    const sources = this.sourcesOf(this.units.map(({ name }) => name));
    if (!this.units.every((unit) => isHot(unit, newest))) {
      await over;
      sources(); // refuses before Sluice is asked
    }
    const heirs = this.units.map((unit) => heirOf(unit, newest, sources));
    const taken = await this.goOn(this.session.now.generation + 1, newest.epoch, heirs, sources, death.seenMs).finally(() => over);
    await Promise.all(this.units.map((unit) => this.turn(unit, taken.machines.get(unit.name))));
    this.session = this.newSession();
    await this.session.begin();
  }

  /** Looked up once, and only where it is asked for: a standby that is ready has all it needs. */
  private sourcesOf(members: readonly string[]): Sources {
    let found: ReturnType<Sources> | undefined;
    return () => (found ??= this.store.sourcesOf(members));
  }

  /** The first checkpoint is an interval later: the guests answer first what was given to them again. */
  private async goOn(generation: number, epoch: number, heirs: readonly Heir[], sources: Sources, seenMs: number): Promise<TakenOver> {
    const { group } = this.options.guests;
    const ports = new Map(heirs.flatMap(({ spec, to }) => spec.nics.map(({ mac }, i) => [plainMac(mac), spec.sides[to].ports[i] ?? ''] as const)));
    const taken = await takeOver(this.client, {
      group, generation, epoch, heirs, sources, seenMs, troubleMaxMs: this.options.troubleMaxMs,
      intend: (n) => this.store.intend(n), replay: () => this.inbound?.replay(ports) ?? 0,
    });
    this.takeovers += 1;
    const { fencedMs, restoredMs, runningMs, replayed, cold } = taken;
    this.tell({ event: 'takeover', generation, epoch, fencedMs, restoredMs, runningMs, replayed, cold });
    this.cadence = new Cadence(this.options);
    this.cadence.begin(performance.now());
    return taken;
  }

  /** The side that waited is the guest now. */
  private async turn(unit: Unit, machine: Unit['machine'] | undefined): Promise<void> {
    if (machine === undefined) throw new Error(`member ${unit.name} was not taken over`);
    unit.side = unit.side === 0 ? 1 : 0;
    unit.machine = machine;
    unit.process = processOf(unit.running);
    unit.standby = undefined;
    await unit.ram.ask({ do: 'turnLive', ram: unit.running.ram });
    await machine.prepareSave();
  }

  private newSession(): GroupSession {
    return new GroupSession(this.client, { group: this.options.guests.group, follow: false, troubleMaxMs: this.options.troubleMaxMs });
  }
  private readonly tell: Tell = (event) => this.tellOut(event);
}
