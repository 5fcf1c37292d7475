/**
 * The group is dead: its other sides go on from the newest durable checkpoint.
 *
 *     death ─► fence the old processes ─┬─► intent in the store ─► Sluice: generation + 1 from epoch R, ports of the new sides
 *                                       └─► every standby: RAM at R (already), device state of R
 *                                  both ─► what came from outside since R is given again ─► all continue
 *
 * The old processes are killed, those that still ran included; what one of them sent meanwhile is of
 * the old generation, and its port is no member's any more. Nobody continues before Sluice accepted
 * and every member is restored: so either all are at R, or none runs.
 *
 * A standby that is not ready (it was being filled) is filled from the store first: `cold`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { SluiceClient } from '../../client.ts';
import { isTrouble } from '../session.ts';
import { continueAll } from './checkpoint.ts';
import type { GuestSpec, SideIndex } from './guest.ts';
import { memberAt } from './guest.ts';
import type { Machine } from './machine.ts';
import { readPart } from './part.ts';
import type { MemberSource } from './store.ts';

const RETRY_MS = 20;

export type Sources = () => ReadonlyMap<string, MemberSource>;

/** One member on its way to the other side. */
export interface Heir {
  readonly spec: GuestSpec;
  readonly to: SideIndex;
  /** Known since it was made durable; otherwise it is read. */
  readonly state: Uint8Array | undefined;
  /** A standby that waits for its state, with RAM at R, and whether it had to be filled. */
  machine(): Promise<{ readonly machine: Machine; readonly cold: boolean }>;
}
export interface TakeoverPlan {
  readonly group: string;
  readonly generation: number;
  readonly epoch: number;
  readonly heirs: readonly Heir[];
  /** What the store has of them: looked up only for who is not at hand. */
  readonly sources: Sources;
  readonly seenMs: number;
  readonly troubleMaxMs: number;
  /** Kept before Sluice is asked. */
  readonly intend: (generation: number) => void;
  /** What came from outside since R, to the new sides' ports; frames. */
  readonly replay: () => number;
}
export interface TakenOver {
  readonly machines: ReadonlyMap<string, Machine>;
  readonly cold: readonly string[];
  readonly replayed: number;
  readonly fencedMs: number;
  readonly restoredMs: number;
  readonly runningMs: number;
}

export async function takeOver(client: SluiceClient, plan: TakeoverPlan): Promise<TakenOver> {
  const since = (): number => performance.now() - plan.seenMs;
  let fencedMs = 0;
  let restoredMs = 0;
  const restoring = Promise.all(plan.heirs.map((heir) => restore(heir, plan.sources))).finally(() => (restoredMs = since()));
  const fencing = fence(client, plan).then(() => (fencedMs = since()));
  const [, restored] = await Promise.all([fencing, restoring]);
  const replayed = plan.replay();
  await continueAll(restored.map(({ machine }) => machine));
  return {
    machines: new Map(restored.map(({ name, machine }) => [name, machine])),
    cold: restored.filter(({ cold }) => cold).map(({ name }) => name),
    replayed, fencedMs, restoredMs, runningMs: since(),
  };
}

/** A daemon that is not there, or in trouble, is waited for: its pins hold meanwhile. A repeat of ours is `ignored`. */
async function fence(client: SluiceClient, { group, generation, epoch, heirs, seenMs, troubleMaxMs, intend }: TakeoverPlan): Promise<void> {
  intend(generation);
  const members = heirs.map(({ spec, to }) => memberAt(spec, to));
  for (;;) {
    try {
      await client.takeover(group, { generation, epoch, members });
      return;
    } catch (error) {
      if (!isTrouble(error) || performance.now() - seenMs > troubleMaxMs) throw error;
      await sleep(RETRY_MS);
    }
  }
}

async function restore(heir: Heir, sources: Sources): Promise<{ name: string; machine: Machine; cold: boolean }> {
  const state = heir.state ?? stateOf(heir.spec, sources);
  const { machine, cold } = await heir.machine();
  await machine.restoreState(state);
  return { name: heir.spec.name, machine, cold };
}

function stateOf({ name, ramBytes }: GuestSpec, sources: Sources): Uint8Array {
  const last = sources().get(name)?.parts.at(-1);
  if (last === undefined) throw new Error(`the store has no part of member ${name}`);
  return readPart(last.path, { ramBytes, sequence: last.sequence }).state;
}
