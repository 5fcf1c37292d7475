/**
 * From processes that run to units that are ready for their first checkpoint.
 *
 *     find      which side of each guest runs
 *     base      a member that the store has an image of keeps it (`kept`): what differs is in the
 *               next delta, however much time has passed; any other, and one whose image is damaged,
 *               is copied while it runs (`full`)
 *     protect   only then does Sluice hold: the group stands still for one short checkpoint, never
 *               for a copy
 *
 * A guest that was left stopped by an engine that died is set going again.
 */
import { Refused } from '../../client.ts';
import type { GroupView } from '../../../proxy/api/contract.ts';
import type { SluiceClient } from '../../client.ts';
import type { Tell } from './events.ts';
import type { GuestSpec, SideIndex } from './guest.ts';
import { memberAt } from './guest.ts';
import { sideIn } from './heirs.ts';
import type { PlacesView } from './heirs.ts';
import { Machine, pidOf, processOf } from './machine.ts';
import { Damaged } from './part.ts';
import { GuestRam } from './ram.ts';
import type { Store } from './store.ts';
import { Unit } from './unit.ts';

export interface Found {
  readonly spec: GuestSpec;
  readonly side: SideIndex;
  readonly machine: Machine;
}
const SIDES: readonly SideIndex[] = [0, 1];

/** The side that runs; undefined when none does. */
export async function findRunning(spec: GuestSpec): Promise<Found | undefined> {
  for (const side of SIDES) {
    if (pidOf(spec.sides[side]) === undefined) continue;
    const machine = await Machine.attach(spec.sides[side]);
    if ((await machine.runState()) !== 'inmigrate') return { spec, side, machine };
    machine.close();
  }
  return undefined;
}

/**
 * Not so: a side that an engine was restoring when it died. What Sluice holds is not of that
 * execution, so that it must never be committed with it: the takeover is done again.
 */
export function isWhereHeld({ spec, side }: Pick<Found, 'spec' | 'side'>, view: PlacesView | undefined): boolean {
  const isMember = view?.phase === 'protected' && view.spec.members.some(({ name }) => name === spec.name);
  return !isMember || sideIn(spec, view) === side;
}

/**
 * Refuses guests that were started again while no engine watched: what Sluice holds was said by the
 * execution that has gone, and the next commit would let it out. Known where the newest checkpoint is
 * of this very generation; a takeover has its own processes.
 */
export function mustBeProtected(found: readonly Found[], { newest }: Pick<Store, 'newest'>, view: GroupView | undefined): void {
  if (view?.phase !== 'protected' || newest?.generation !== view.generation) return;
  const others = found.filter(({ spec, side }) => {
    const known = newest.members[spec.name]?.process;
    return known !== undefined && known !== processOf(spec.sides[side]);
  }).map(({ spec }) => spec.name);
  if (others.length === 0) return;
  throw new Error(`${others.join(', ')} of group ${view.group} were started again since checkpoint ${newest.epoch}, they are not what is protected: `
    + `end them and start this engine, and the group goes on from the checkpoint; or give it up with sluice unprotect ${view.group} --held discard, and protect them anew`);
}

/** With a base image, prepared for its first checkpoint, and running. */
export async function takeOn(found: Found, store: Store, tell: Tell): Promise<Unit> {
  const { spec, side, machine } = found;
  await machine.prepareSave();
  if ((await machine.runState()) !== 'running') await machine.cont();
  const kept = await maybeKept(found, store, tell);
  if (kept !== undefined) return kept;
  const ram = ramOf(found);
  const base = store.newBase(spec.name);
  store.seeding.add(base);
  const { count, tookMs } = await ram.ask({ do: 'seed', base: store.basePath(base) });
  tell({ event: 'based', member: spec.name, how: 'full', movedBytes: count, tookMs });
  return new Unit(spec, side, machine, ram, base);
}

const ramOf = ({ spec, side }: Found): GuestRam => new GuestRam(spec.name, { ram: spec.sides[side].ram, ramBytes: spec.ramBytes });

/**
 * With the image that the store has of it. A damaged one is told and given up: its guest runs, and a new
 * picture of it is the way out; nobody goes back to anything by that, and the other members keep theirs.
 */
async function maybeKept(found: Found, store: Store, tell: Tell): Promise<Unit | undefined> {
  const { spec, side, machine } = found;
  const kept = store.newest?.members[spec.name];
  if (kept?.ramBytes !== spec.ramBytes) return undefined;
  const ram = ramOf(found);
  try {
    const source = store.sourcesOf([spec.name]).get(spec.name);
    const { tookMs } = await ram.ask({ do: 'adopt', base: store.basePath(kept.base), parts: source?.parts ?? [] });
    tell({ event: 'based', member: spec.name, how: 'kept', movedBytes: 0, tookMs });
    return new Unit(spec, side, machine, ram, kept.base);
  } catch (error) {
    await ram.close();
    if (!(error instanceof Damaged)) throw error;
    tell({ event: 'base-lost', member: spec.name, why: error.message });
    return undefined;
  }
}

/** undefined: the daemon knows no such group. */
export async function maybeGroup(client: SluiceClient, group: string): Promise<GroupView | undefined> {
  try {
    return await client.group(group);
  } catch (error) {
    if (error instanceof Refused && error.code === 'no_such_group') return undefined;
    throw error;
  }
}

/**
 * The group held by Sluice, its members where they run. What is protected already stays so: who is
 * new in the guests' file joins, who is no longer in it leaves (what it had held is dropped: nobody
 * knows whether its execution goes on), and the others are not touched.
 */
export async function protectUnits(client: SluiceClient, group: string, units: readonly Unit[], tell: Tell): Promise<void> {
  const view = await maybeGroup(client, group);
  if (view?.phase === 'protected') {
    const known = new Set(view.members.map(({ name }) => name));
    for (const unit of units.filter(({ name }) => !known.has(name))) await client.join(group, unit.name, memberAt(unit.spec, unit.side));
    for (const name of known) if (!units.some((unit) => unit.name === name)) await client.leave(group, name, 'discard');
    return;
  }
  await client.apply(group, { ...view?.spec, group, members: units.map((unit) => memberAt(unit.spec, unit.side)) });
  const { generation } = await client.protect(group);
  tell({ event: 'protected', generation });
}
