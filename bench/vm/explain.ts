/**
 * The outside oracle of a group of VMs: is every frame that left the host one that the committed
 * state has sent?
 *
 *   tap (a guest's own frames, with the kernel's time) ──── sent(key, at)
 *   uplink (what left the host, with the kernel's time) ─── seen(key, at)
 *   relay (each command's begin and answer) ─────────────── commands
 *
 * The rule is that of bed/oracle.ts: a frame sent after cut(e) was answered is of an epoch > e and
 * must not be seen before a commit of an epoch > e was begun, in its own execution. A takeover to R
 * lets out what is <= R of the old execution and begins a new one at R + 1. One-sided: what it
 * calls unexplained is wrong, what a command's width hides it misses.
 *
 * What differs, and why this is another judge: a guest that goes on from a checkpoint sends again,
 * byte for byte, what its dead self had sent. A frame seen is therefore explained when *any* frame
 * of the same bytes explains it, and all is judged afterwards, from the whole record.
 *
 * Sluice, QEMU and the engine announce addresses themselves, with the same bytes: RARP, gratuitous
 * ARP and advertisements to all, which say nothing of a guest's state, are counted apart where nothing explains them.
 */
import type { Command } from './relay.ts';

export interface WireFrame {
  readonly key: string;
  /** What it is, for who has to find out why. */
  readonly text: string;
  readonly atUs: number;
  /** An address announcement: RARP, gratuitous ARP, an unsolicited neighbour advertisement. */
  readonly announcement: boolean;
}

export interface Explanation {
  /** Frames of the guests that left the host. */
  readonly seen: number;
  readonly announcements: number;
  /** Frames that left too early, or that no guest had sent. */
  readonly unexplained: readonly WireFrame[];
  /** Frames the guests sent outside that never left: discarded, held, or lost. */
  readonly kept: number;
  /** Of these: a commit had let them out, and they came to nothing, because their guest's port was dead already. */
  readonly spent: number;
}

interface Execution {
  readonly fromUs: number;
  /** Open epoch at a time, by the cuts' answers; ascending. */
  readonly opened: { readonly atUs: number; readonly epoch: number }[];
  /** Commits by their begin; ascending. */
  readonly commits: { readonly atUs: number; readonly epoch: number }[];
  /** The other side of each command: what was sent before a cut began is of its epoch; what a commit has let out when it was answered. */
  readonly sealed: { readonly atUs: number; readonly epoch: number }[];
  readonly released: { readonly atUs: number; readonly epoch: number }[];
}

export function explain(sent: readonly WireFrame[], seen: readonly WireFrame[], commands: readonly Command[]): Explanation {
  const executions = executionsOf(commands);
  const protectedUs = commands.find(({ verb }) => verb === 'protect')?.endUs ?? Number.POSITIVE_INFINITY;
  const times = new Map<string, number[]>();
  for (const { key, atUs } of sent) times.set(key, [...(times.get(key) ?? []), atUs]);
  const unexplained: WireFrame[] = [];
  let announcements = 0;
  for (const frame of seen) {
    const sentUs = times.get(frame.key) ?? [];
    if (sentUs.some((us) => us <= frame.atUs && (us < protectedUs || mayLeave(executions, us, frame.atUs)))) continue;
    if (frame.announcement) announcements++;
    else unexplained.push({ ...frame, text: `${frame.text}, ${history(frame, sentUs, executions)}` });
  }
  return { seen: seen.length, announcements, unexplained, kept: sent.length - (seen.length - announcements), spent: spent(sent.filter(({ atUs }) => atUs >= protectedUs), seen, executions) };
}

/** Frames that must have left before a takeover began, and were not seen. */
function spent(sent: readonly WireFrame[], seen: readonly WireFrame[], executions: readonly Execution[]): number {
  const seenUs = new Map<string, number[]>();
  for (const { key, atUs } of seen) seenUs.set(key, [...(seenUs.get(key) ?? []), atUs]);
  return sent.filter(({ key, atUs: sentUs, announcement }) => {
    const i = executions.findLastIndex(({ fromUs }) => fromUs <= sentUs);
    const endUs = executions[i + 1]?.fromUs;
    const seal = executions[i]?.sealed.find(({ atUs }) => atUs >= sentUs);
    if (announcement || endUs === undefined || seal === undefined) return false;
    const isOut = executions[i]?.released.some(({ atUs, epoch }) => epoch >= seal.epoch && atUs < endUs) === true;
    return isOut && !(seenUs.get(key) ?? []).some((us) => us >= sentUs && us < endUs);
  }).length;
}

/** When it was sent and what was open and committed then, relative to when it was seen. */
function history(frame: WireFrame, sentUs: readonly number[], executions: readonly Execution[]): string {
  const ago = (us: number): string => `${((frame.atUs - us) / 1e3).toFixed(2)} ms before`;
  const epochs = executions.map(({ opened, commits }, i) => {
    const open = sentUs.map((us) => opened.findLast(({ atUs }) => atUs <= us));
    const next = commits.find(({ epoch }) => epoch >= (open[0]?.epoch ?? 1));
    return `execution ${i}: open ${open.map((each) => each?.epoch ?? 1).join()} then, committed ${next === undefined ? 'never' : `${next.epoch} ${ago(next.atUs)}`}`;
  });
  return `sent ${sentUs.length === 0 ? 'never' : sentUs.map(ago).join(', ')}; ${epochs.join('; ')}`;
}

/** Whether a frame sent at `sentUs` may be outside at `seenUs`, in any execution it may be of. */
function mayLeave(executions: readonly Execution[], sentUs: number, seenUs: number): boolean {
  return executions.some((execution, i) => {
    const endUs = executions[i + 1]?.fromUs ?? Number.POSITIVE_INFINITY;
    if (sentUs < execution.fromUs || sentUs > endUs) return false;
    const floor = execution.opened.findLast(({ atUs }) => atUs <= sentUs)?.epoch ?? 1;
    return execution.commits.some(({ atUs, epoch }) => epoch >= floor && atUs <= seenUs);
  });
}

/** A takeover ends one execution (its R commits what was before) and begins the next at R + 1. */
function executionsOf(commands: readonly Command[]): Execution[] {
  let now: Execution = { fromUs: 0, opened: [], commits: [], sealed: [], released: [] };
  const all = [now];
  for (const { verb, epoch, beginUs, endUs, accepted } of commands) {
    // A command that was never answered may have worked; one that was refused did not.
    if (endUs !== undefined && !accepted) continue;
    if (verb === 'cut' && endUs !== undefined) now.sealed.push({ atUs: beginUs, epoch });
    if (verb === 'commit' && endUs !== undefined) now.released.push({ atUs: endUs, epoch });
    if (verb === 'cut' && endUs !== undefined) now.opened.push({ atUs: endUs, epoch: epoch + 1 });
    if (verb === 'commit') now.commits.push({ atUs: beginUs, epoch });
    if (verb === 'unprotect') now.commits.push({ atUs: beginUs, epoch: Number.MAX_SAFE_INTEGER });
    if (verb !== 'takeover' && verb !== 'rollback') continue;
    now.commits.push({ atUs: beginUs, epoch });
    now = { fromUs: beginUs, opened: [{ atUs: beginUs, epoch: epoch + 1 }], commits: [], sealed: [], released: [] };
    all.push(now);
  }
  return all;
}
