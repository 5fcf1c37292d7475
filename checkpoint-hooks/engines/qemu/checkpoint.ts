/**
 * One checkpoint of the whole group.
 *
 *     all stop ─► all save: device state │ compare RAM ─► cut ─► all continue        the group stands
 *                                                                     │
 *     parts written and synced ─► one rename: durable ─► settled: bases and standbys have it
 *
 * Every member is stopped before any is saved and the cut lies between save and continue, so that
 * what a member sends afterwards has the colour of the next epoch. When anything fails while they
 * are stopped, all go on, nothing was written, and the next checkpoint covers what this one would
 * have: a cut without a checkpoint only makes an epoch longer.
 *
 * `give up` (the group is dying) is looked at before the first byte is written and before the
 * rename: afterwards this checkpoint is the newest, and the takeover's.
 *
 * Bound: the cut is given CUT_DEADLINE_MS, since the guests stand meanwhile.
 */
import { Unreachable } from '../../client.ts';
import type { Machine } from './machine.ts';
import type { Manifest, Store } from './store.ts';
import type { Unit } from './unit.ts';

const CUT_DEADLINE_MS = 500;

export type Phase = 'stopping' | 'stopped' | 'saved' | 'cut' | 'running' | 'written' | 'durable' | 'settled';

export interface Captured {
  readonly epoch: number;
  readonly generation: number;
  readonly stopMs: number;
  readonly saveMs: number;
  readonly compareMs: number;
  readonly cutMs: number;
  /** By member. */
  readonly states: ReadonlyMap<string, Uint8Array>;
  readonly pages: ReadonlyMap<string, number>;
}

export interface CaptureDeps {
  /** Seals the open epoch; resolves with its number and generation. */
  cut(): Promise<{ readonly epoch: number; readonly generation: number }>;
  phase(phase: Phase): void;
}

export async function capture(units: readonly Unit[], deps: CaptureDeps): Promise<Captured> {
  const beganMs = performance.now();
  deps.phase('stopping');
  try {
    await Promise.all(units.map(({ machine }) => machine.stop()));
    deps.phase('stopped');
    const saved = await Promise.all(units.map(saveOne));
    deps.phase('saved');
    const cutFromMs = performance.now();
    const sealed = await within(deps.cut(), CUT_DEADLINE_MS);
    const cutMs = performance.now() - cutFromMs;
    deps.phase('cut');
    await continueAll(units.map(({ machine }) => machine));
    const stopMs = performance.now() - beganMs;
    deps.phase('running');
    return {
      ...sealed, stopMs, cutMs,
      saveMs: Math.max(...saved.map((one) => one.saveMs)),
      compareMs: Math.max(...saved.map((one) => one.compareMs)),
      states: new Map(saved.map(({ name, state }) => [name, state])),
      pages: new Map(saved.map(({ name, pages }) => [name, pages])),
    };
  } catch (error) {
    await continueAll(units.map(({ machine }) => machine)).catch(() => undefined); // who is dead has said so already
    throw error;
  }
}

export async function continueAll(machines: readonly Machine[]): Promise<void> {
  const done = await Promise.allSettled(machines.map((machine) => machine.cont()));
  for (const one of done) if (one.status === 'rejected') throw one.reason;
}

async function saveOne({ name, machine, ram }: Unit): Promise<{ name: string; state: Uint8Array; saveMs: number; compareMs: number; pages: number }> {
  const beganMs = performance.now();
  let saveMs = 0;
  const saving = machine.saveState().finally(() => (saveMs = performance.now() - beganMs));
  const [state, compared] = await Promise.all([saving, ram.ask({ do: 'capture' })]);
  return { name, state, saveMs, compareMs: compared.tookMs, pages: compared.count };
}

/** Into the store. undefined: given up, the checkpoint does not exist. */
export async function ship(units: readonly Unit[], captured: Captured, store: Store, deps: ShipDeps): Promise<Manifest | undefined> {
  if (deps.isGivenUp()) return undefined;
  const sequence = store.stage();
  const written = await Promise.all(units.map(async ({ name, ram, base, spec, process }) => {
    const { count } = await ram.ask({ do: 'write', part: store.stagedPart(sequence, name), state: mustState(captured, name) });
    const pages = captured.pages.get(name) ?? 0;
    return [name, { base, ramBytes: spec.ramBytes, ...(process === undefined ? {} : { process }), pages, bytes: count }] as const;
  }));
  deps.phase('written');
  if (deps.isGivenUp()) return undefined;
  const { generation, epoch } = captured;
  const sealing = seal(units, captured, store, deps, { sequence, generation, epoch, members: Object.fromEntries(written) });
  deps.sealing(sealing);
  return sealing;
}

/** From here on it cannot be given up: who wants to know the newest checkpoint waits for its end. */
async function seal(units: readonly Unit[], captured: Captured, store: Store, deps: ShipDeps, what: Pick<Manifest, 'sequence' | 'generation' | 'epoch' | 'members'>): Promise<Manifest> {
  const manifest = await store.commit(what.sequence, what);
  deps.phase('durable');
  await Promise.all(units.map((unit) => settleOne(unit, what.sequence, mustState(captured, unit.name))));
  deps.phase('settled');
  return manifest;
}

export interface ShipDeps {
  phase(phase: Phase): void;
  isGivenUp(): boolean;
  sealing(done: Promise<Manifest>): void;
}

async function settleOne(unit: Unit, sequence: number, state: Uint8Array): Promise<void> {
  const standby = unit.standby;
  const wasCopied = standby?.copied === true;
  await unit.ram.ask({ do: 'settle' });
  unit.settled = { sequence, state };
  if (standby !== undefined && wasCopied) standby.ready = true;
}

function mustState({ states }: Captured, name: string): Uint8Array {
  const state = states.get(name);
  if (state === undefined) throw new Error(`member ${name} was not captured`);
  return state;
}

async function within<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Unreachable(`the cut was not answered within ${ms} ms`, 'see whether sluiced is stuck')), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
    work.catch(() => undefined);
  }
}
