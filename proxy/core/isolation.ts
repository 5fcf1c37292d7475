/**
 * Is this host cut off from what proves that the network is there? Pure; no clock decides anything.
 *
 *               2 rounds silent        `rounds` silent
 *    reachable ───────────────► suspect ─────────────► isolated
 *        ▲  ▲                      │ any answer            │ answers in REJOIN_ROUNDS rounds in a row
 *        │  └──────────────────────┘                       │
 *        └─────────────────────────────────────────────────┘
 *    unknown: from the start to the first answer, or to isolated
 *
 * A *round* is one probe sent to every isolation address. Counted are rounds that were really sent
 * and that nobody answered, not seconds: a prober that is dead or paused, and a host whose clock
 * stood still, send none, and then nothing is concluded. One address that answers is enough.
 *
 * Peers are judged apart (`peerOf`), by their heartbeats in the ledger: these come by the ledger's
 * network, which may be another one than the members', so they don't excuse a host whose addresses
 * are silent, and their silence convicts nobody.
 */

export type IsolationPhase = 'unknown' | 'reachable' | 'suspect' | 'isolated';

export interface Isolation {
  readonly phase: IsolationPhase;
  /** When the phase began. */
  readonly sinceMs: number;
  /** Rounds in a row that nobody answered; the newest is counted when the next begins. */
  readonly silent: number;
  /** Rounds in a row that somebody answered, the newest one too. */
  readonly answered: number;
  /** Somebody has answered since the newest round began. */
  readonly heard: boolean;
  /** No round has begun yet: then there is none to count. */
  readonly begun: boolean;
}
export type Sign = { readonly kind: 'round' | 'answer'; readonly atMs: number };

export const SUSPECT_ROUNDS = 2;
export const REJOIN_ROUNDS = 2;

export const unknownAt = (atMs: number): Isolation => ({ phase: 'unknown', sinceMs: atMs, silent: 0, answered: 0, heard: false, begun: false });

/** `rounds`: so many in a row without an answer isolate. */
export function heedSign(before: Isolation, sign: Sign, rounds: number): Isolation {
  const counted = sign.kind === 'round' ? nextRound(before) : answeredNow(before);
  const phase = phaseOf(counted, rounds);
  return { ...counted, phase, sinceMs: phase === before.phase ? before.sinceMs : sign.atMs };
}

function nextRound(before: Isolation): Isolation {
  if (!before.begun) return { ...before, begun: true };
  return before.heard ? { ...before, silent: 0, heard: false } : { ...before, silent: before.silent + 1, answered: 0 };
}

/** The first of a round counts; an answer that comes when no round has begun is of another life. */
function answeredNow(before: Isolation): Isolation {
  return before.heard || !before.begun ? before : { ...before, heard: true, silent: 0, answered: before.answered + 1 };
}

function phaseOf({ phase, silent, answered }: Isolation, rounds: number): IsolationPhase {
  if (silent >= rounds) return 'isolated';
  if (phase === 'isolated') return answered >= REJOIN_ROUNDS ? 'reachable' : 'isolated';
  if (answered > 0) return 'reachable';
  if (phase === 'unknown') return 'unknown';
  return silent >= SUSPECT_ROUNDS ? 'suspect' : phase;
}

export type PeerPhase = 'there' | 'late' | 'lost' | 'unknown';

/** unknown: this host hears not even itself, so it can't tell. */
export function peerOf({ heardMs, selfHeardMs, isAlive }: { readonly heardMs: number; readonly selfHeardMs: number; readonly isAlive: boolean }, nowMs: number, lateMs: number): PeerPhase {
  if (!isAlive) return 'lost';
  if (nowMs - selfHeardMs > lateMs) return 'unknown';
  return nowMs - heardMs > lateMs ? 'late' : 'there';
}
