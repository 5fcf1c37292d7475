/**
 * What a ledger promises, in memory and pure: the two writes, each all or nothing. The real one is
 * held to the same by the contract test; the exploration runs on this.
 */
import { hostsOf } from '../../proxy/core/hosts.ts';
import { epoch } from '../../proxy/core/types.ts';
import type { Acked, Epoch, Head, LedgerView, Swap } from '../../proxy/core/types.ts';

export interface Store {
  readonly head: Head | undefined;
  /** Grows with each change of the head. */
  readonly revision: number;
  /** generation/host/life -> epoch, of the newest generation alone. */
  readonly acks: Readonly<Record<string, Epoch>>;
}
export const EMPTY: Store = { head: undefined, revision: 0, acks: {} };

export const ackKey = ({ generation, life, host }: Omit<Acked, 'epoch'>): string => `${generation}/${host}/${life ?? ''}`;

export function viewOf(head: Head | undefined, revision: number, acks: Readonly<Record<string, Epoch>>): LedgerView {
  if (head === undefined) return { head, revision, acks: {} };
  const mine = hostsOf(head.spec).flatMap((host) => {
    const acked = acks[ackKey({ generation: head.generation, life: head.life, host })];
    return acked === undefined ? [] : [[host, acked] as const];
  });
  return { head, revision, acks: Object.fromEntries(mine) };
}

/** undefined = refused, nothing is changed. */
export function acked(store: Store, write: Acked): Store | undefined {
  const now = store.acks[ackKey(write)];
  return now === undefined || now >= write.epoch ? undefined : { ...store, acks: { ...store.acks, [ackKey(write)]: write.epoch } };
}

export function swapped(store: Store, { revision, witness, head, begins }: Swap): Store | undefined {
  if (store.revision !== revision) return undefined;
  if (witness !== undefined && store.acks[ackKey(witness)] !== witness.epoch) return undefined;
  const acks = begins.length === 0 ? store.acks : Object.fromEntries(begins.map((host) => [ackKey({ host, generation: head.generation, life: head.life }), epoch(head.start)]));
  return { head, revision: revision + 1, acks };
}
