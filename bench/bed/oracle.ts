/**
 * The outside oracle: decides from outside Sluice, by clocks alone, whether a frame left too early.
 *
 *   sender:    writes down each external frame's time *before* it puts it on the wire
 *   engine:    writes down each command's time before the call (begin) and after its answer (end)
 *   outsider:  captures frames with the kernel's time at its own device
 *
 * The rule. A frame sent after cut(e) had returned belongs to an epoch > e: it must not be seen
 * before a command that commits an epoch > e was begun. That is one-sided on purpose. The frame's
 * epoch is only known to be *at least* that (`floor`): a cut that was under way may or may not
 * have come first. And a commit may work at any moment after its call was begun. So the oracle
 * never accuses wrongly, and what it misses is the width of one call, a fraction of a millisecond;
 * frames of many microseconds' spread around every cut make that width small.
 *
 *   cut(1) begin end            commit(2) begin   end
 *   ──────┴──────┴──x───────────────────┴──────────┴───►      x sent: floor 2. Seen before
 *                                       └ may be seen from here on   commit(2)'s begin = leak
 *
 * Rollback and takeover to R begin a new execution: what was sent before and is later than R must
 * never be seen; what is sent after counts from R + 1 and needs a commit of the new execution. A
 * frame sent while such a call was under way may be of either. `released` (unprotect) frees all
 * that was sent before or after. A member's own cut raises the floor of its own frames only.
 *
 * Frames inside the group are told too (`sentInside`). Normally they are never seen outside; but
 * once their receiver is gone from the bridge they are the outside's business, held like any other,
 * and after their commit the bridge may flood them. So they are judged by the same rule when seen,
 * and never counted as sent, held or lost. They are forgotten after INSIDE_KEPT_US: a frame inside
 * that the oracle does not know any more is accused.
 *
 * `ceiling` is the other side, for losses: the latest epoch a frame can belong to. A frame whose
 * ceiling was committed in its execution and which was never seen is lost.
 *
 * Limits: keys must be unique among frames under way (a key seen twice is a duplicate). Memory
 * grows with the frames not yet seen and with the commands.
 */

export type CommandKind = 'cut' | 'commit' | 'rollback' | 'takeover' | 'released';

interface Execution {
  /** Commands that let epochs <= epoch out, in order of their begin; epochs ascend. */
  readonly commits: { epoch: number; beginUs: number }[];
}

interface Sent {
  readonly atUs: number;
  /** Executions and least epochs the frame may be of; seen is right if any of them allows it. */
  readonly floors: readonly { readonly execution: Execution; readonly epoch: number }[];
  readonly execution: Execution;
  ceiling: number;
}

/** A frame that was seen before it may be. */
export interface Leak {
  readonly key: string;
  readonly sentUs: number;
  readonly seenUs: number;
  /** Begin of the first command that allows it; undefined = none ever. */
  readonly allowedUs: number | undefined;
}

export interface OracleCount {
  readonly sent: number;
  readonly seen: number;
  /** Not seen, and not certainly committed: still held or discarded. */
  readonly held: number;
  readonly lost: number;
  readonly leaked: number;
  readonly duplicates: number;
  /** Frames for a member that were seen outside, leaked or committed before. */
  readonly strays: number;
}

const LEAKS_KEPT_MAX = 32;
const INSIDE_KEPT_US = 10e6;

export class Oracle {
  #execution: Execution = { commits: [] };
  readonly #open = new Map<string, number>(); // member -> its open epoch, where ahead of the group's
  #groupOpen = 1;
  #pendingRestore: { execution: Execution; epoch: number } | undefined;
  #pendingCeiling = 0;
  readonly #waiting = new Map<string, Sent>();
  readonly #inside = new Map<string, Sent>();
  readonly #gone = new Set<string>();
  #sent = 0;
  #seen = 0;
  #leaked = 0;
  #duplicates = 0;
  #strays = 0;
  readonly leaks: Leak[] = [];
  readonly #keepSeen: boolean;

  /** `keepSeen`: remember seen keys, to count duplicates; without it memory stays flat. */
  constructor(options: { readonly keepSeen?: boolean } = {}) {
    this.#keepSeen = options.keepSeen ?? true;
  }

  /** A frame for the outside is about to be put on the wire by `member`. */
  sent(key: string, member: string, atUs: number): void {
    this.#note(this.#waiting, key, member, atUs);
    this.#sent++;
  }

  /** A frame for another member is about to be put on the wire. */
  sentInside(key: string, member: string, atUs: number): void {
    this.#note(this.#inside, key, member, atUs);
    for (const [oldest, { atUs: oldestUs }] of this.#inside) {
      if (atUs - oldestUs < INSIDE_KEPT_US) break;
      this.#inside.delete(oldest);
    }
  }

  #note(into: Map<string, Sent>, key: string, member: string, atUs: number): void {
    const own = Math.max(this.#groupOpen, this.#open.get(member) ?? 0);
    const floors = [{ execution: this.#execution, epoch: own }];
    if (this.#pendingRestore !== undefined) floors.push(this.#pendingRestore);
    if (into.has(key)) throw new Error(`oracle: two frames under way with the key ${key}`);
    const ceiling = Math.max(own, this.#pendingCeiling);
    into.set(key, { atUs, floors, execution: this.#execution, ceiling });
  }

  /** The frame could not be put on the wire after all. */
  notSent(key: string): void {
    if (this.#waiting.delete(key)) this.#sent--;
  }

  /**
   * A frame was captured outside. Frames that are not the oracle's are ignored. Returns how long
   * it was under way, microseconds.
   */
  seen(key: string, atUs: number): number | undefined {
    const sent = this.#waiting.get(key);
    if (sent === undefined) {
      if (this.#gone.has(key)) this.#duplicates++;
      return undefined;
    }
    this.#waiting.delete(key);
    if (this.#keepSeen) this.#gone.add(key);
    this.#seen++;
    this.#judge(key, sent, atUs);
    return atUs - sent.atUs;
  }

  /** A frame for another member was captured outside. */
  seenInside(key: string, atUs: number): void {
    const sent = this.#inside.get(key);
    this.#strays++;
    if (sent === undefined) this.#accuse({ key, sentUs: Number.NaN, seenUs: atUs, allowedUs: undefined });
    else this.#judge(key, sent, atUs);
  }

  #judge(key: string, sent: Sent, seenUs: number): void {
    const allowedUs = firstAllowed(sent.floors);
    if (allowedUs === undefined || seenUs < allowedUs) this.#accuse({ key, sentUs: sent.atUs, seenUs, allowedUs });
  }

  #accuse(leak: Leak): void {
    this.#leaked++;
    if (this.leaks.length < LEAKS_KEPT_MAX) this.leaks.push(leak);
  }

  /**
   * A command is about to be sent. Returns what to call when its answer came: with true where it
   * was accepted, false where it was refused. A command without an answer (the daemon died) may
   * have worked: don't call. A command that must be refused is better not told at all: until its
   * answer it would excuse a leak.
   */
  begin(kind: CommandKind, epoch: number, atUs: number, member?: string): (accepted: boolean) => void {
    switch (kind) {
      case 'cut':
        return this.#beginCut(epoch, member);
      case 'commit':
        return pushCommit(this.#execution, epoch, atUs);
      case 'released':
        return pushCommit(this.#execution, Number.MAX_SAFE_INTEGER, atUs);
      case 'rollback':
      case 'takeover':
        return this.#beginRestore(epoch, atUs);
    }
  }

  /** The group's open epoch as the daemon has just answered it (after its restart). */
  opened(epoch: number): void {
    this.#groupOpen = Math.max(this.#groupOpen, epoch);
  }

  count(): OracleCount {
    let lost = 0;
    for (const frame of this.#waiting.values()) {
      const last = frame.execution.commits.at(-1);
      if (frame.floors.length === 1 && last !== undefined && last.epoch >= frame.ceiling) lost++;
    }
    const open = this.#waiting.size;
    return {
      sent: this.#sent, seen: this.#seen, held: open - lost, lost, leaked: this.#leaked, duplicates: this.#duplicates,
      strays: this.#strays,
    };
  }

  #beginCut(epoch: number, member: string | undefined): (accepted: boolean) => void {
    // From now until the answer a frame may already be of the next epoch: raise the ceilings.
    this.#pendingCeiling = Math.max(this.#pendingCeiling, epoch + 1);
    return (accepted) => {
      if (!accepted) return;
      if (member !== undefined) this.#open.set(member, epoch + 1);
      else this.#groupOpen = Math.max(this.#groupOpen, epoch + 1);
    };
  }

  #beginRestore(epoch: number, atUs: number): (accepted: boolean) => void {
    const answerCommit = pushCommit(this.#execution, epoch, atUs);
    const next: Execution = { commits: [] };
    this.#pendingRestore = { execution: next, epoch: epoch + 1 };
    return (accepted) => {
      this.#pendingRestore = undefined;
      answerCommit(accepted);
      if (!accepted) return;
      this.#execution = next;
      this.#groupOpen = epoch + 1;
      this.#pendingCeiling = 0;
      this.#open.clear();
    };
  }
}

/** Adds a commit; what is returned takes it back if it was refused. */
function pushCommit(execution: Execution, epoch: number, beginUs: number): (accepted: boolean) => void {
  const last = execution.commits.at(-1);
  if (last !== undefined && epoch <= last.epoch) return () => undefined;
  const commit = { epoch, beginUs };
  execution.commits.push(commit);
  return (accepted) => {
    const at = accepted ? -1 : execution.commits.indexOf(commit);
    if (at >= 0) execution.commits.splice(at, 1);
  };
}

/** Begin of the first command that lets the frame out, over the executions it may be of. */
function firstAllowed(floors: Sent['floors']): number | undefined {
  let first: number | undefined;
  for (const { execution, epoch } of floors) {
    const { commits } = execution;
    let low = 0;
    let high = commits.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((commits[middle]?.epoch ?? 0) >= epoch) high = middle;
      else low = middle + 1;
    }
    const found = commits[low]?.beginUs;
    if (found !== undefined && (first === undefined || found < first)) first = found;
  }
  return first;
}
