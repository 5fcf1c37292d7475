/**
 * A group across hosts: what its record in the ledger means, and how it may change. Pure.
 *
 *      head   { serial, phase, generation, from, start = R, spec }        one for the group
 *      ack    h1: 7    h2: 9    h3: 8                                     one a host and generation
 *             └ committed = the least of them = 7
 *
 * Nobody decides a commit. Every host writes how far its own members are durable, reads how far the
 * others are, and derives what is committed. Why any old view is safe to act on: within a generation
 * acks only rise and hosts do not change, so the least of old acks is at most the least of new ones.
 *
 * A takeover is one swap of the head, and R is the least ack at that very moment: the swap also says
 * that one host whose ack is R (the *witness*) has not moved since it was read. The others' acks may
 * rise meanwhile, and the least is still R. From then on no ack of the old generation can be written,
 * so the old generation's committed is R for ever, for everybody, whenever they look.
 *
 * `across.ts` is what a host does about it. Neither knows how the ledger keeps its word.
 */
import { NUMBER_MAX, epoch, generation } from './types.ts';
import type { Across, Command, Epoch, Generation, GroupSpec, GroupState, Head, HostProgress, LedgerView, Reply, Swap } from './types.ts';
import { isAcross, movedTo, sameSpec, specFault } from './spec.ts';
import { ACCEPTED, IGNORED, deny } from './watermarks.ts';
import type { CommandOf } from './watermarks.ts';

/** Commands that are about the group as a whole: the ledger has the word. */
export type HeadCommand = CommandOf<'apply' | 'delete' | 'protect' | 'takeover' | 'unprotect'>;
export const isHeadCommand = (command: Command): command is HeadCommand =>
  command.kind === 'apply' || command.kind === 'delete' || command.kind === 'protect' || command.kind === 'takeover' || command.kind === 'unprotect';

/** A spec does not change, and who its hosts are is asked with each ack. */
const hosts = new WeakMap<GroupSpec, readonly string[]>();
/** In the order of their names, each once. */
export function hostsOf(spec: GroupSpec): readonly string[] {
  const known = hosts.get(spec) ?? [...new Set(spec.members.flatMap(({ host }) => (host === undefined ? [] : [host])))].sort();
  hosts.set(spec, known);
  return known;
}

/** How far a host is, as this view knows: never less than where its generation began. */
export const ackOf = (head: Head, { acks }: LedgerView, host: string): Epoch =>
  epoch(Math.max(head.start, Object.hasOwn(acks, host) ? (acks[host] ?? head.start) : head.start)); // a host may be named `constructor`

/** The last epoch that all hosts of this head's generation have acked. */
export function committedOf(head: Head, view: LedgerView): Epoch {
  return epoch(hostsOf(head.spec).reduce((least, host) => Math.min(least, ackOf(head, view, host)), Number.MAX_SAFE_INTEGER));
}

/** Who keeps the group from committing this epoch. */
export const lateHosts = (head: Head, view: LedgerView, e: Epoch): readonly string[] => hostsOf(head.spec).filter((host) => ackOf(head, view, host) < e);

/** Each host of the newest generation, as this view knows. */
export function progressOf(head: Head, view: LedgerView): readonly HostProgress[] {
  const acks = hostsOf(head.spec).map((host) => ({ host, acked: ackOf(head, view, host) }));
  const most = acks.reduce((newest, { acked }) => Math.max(newest, acked), 0);
  const committed = committedOf(head, view);
  return acks.map(({ host, acked }) => ({ host, acked, late: acked === committed && acked < most }));
}

export type Decision = { readonly reply: Reply; readonly swap?: Swap };
export interface Asker {
  /** For a generation that begins with this command: a name that none had before. */
  readonly life: string;
  /** What the asking host knows of the group. */
  readonly known: GroupState | undefined;
}

/** What a command does to the head. ignored: it is so already. */
export function decideHead(view: LedgerView, command: HeadCommand, by: Asker): Decision {
  const { reply, swap } = decide(view, command, by);
  const serial = Math.max(view.head?.serial ?? 0, by.known?.across?.serial ?? 0) + 1; // newer than any that this host was told of
  return swap === undefined ? { reply } : { reply, swap: { ...swap, head: { ...swap.head, serial } } };
}

type Unnumbered = Omit<Swap, 'head'> & { readonly head: Omit<Head, 'serial'> };
type Draft = { readonly reply: Reply; readonly swap?: Unnumbered };

function decide(view: LedgerView, command: HeadCommand, { life, known }: Asker): Draft {
  if (command.kind === 'apply') return decideSpec(view, command.spec);
  const { head } = view;
  if (head === undefined || head.phase === 'deleted') return { reply: deny('no_such_group', 'there is no such group in the ledger: apply its file first') };
  switch (command.kind) {
    case 'protect': return decideBegin(view, head, { given: command.generation, life, known });
    case 'takeover': return decideRaise(view, head, command, { life, known });
    case 'unprotect': return decideEnd(view, head, command, known);
    case 'delete': return decideRemoval(view, head);
  }
}

const changed = (view: LedgerView, head: Omit<Head, 'serial'>, rest: Omit<Swap, 'revision' | 'head'>): Draft => ({
  reply: ACCEPTED,
  swap: { revision: view.revision, head, ...rest },
});

const BLANK: Omit<Head, 'serial' | 'spec'> = { phase: 'idle', generation: generation(0), begun: 'protect', from: generation(0), start: epoch(0), held: 'discard' };

function decideSpec(view: LedgerView, spec: GroupSpec): Draft {
  const { head } = view;
  const fault = specFault(spec);
  if (fault !== undefined) return { reply: deny('bad_request', fault) };
  if (!isAcross(spec)) return { reply: deny('bad_request', 'the group is one across hosts: give each member its host, or delete the group first') };
  if (head !== undefined && head.phase !== 'deleted' && sameSpec(head.spec, spec)) return { reply: IGNORED };
  if (head?.phase === 'protected') return { reply: deny('member_held', 'the file of a group across hosts changes only while it is unprotected: unprotect it first') };
  return changed(view, { ...(head ?? BLANK), phase: 'idle', spec }, { begins: [] });
}

/** Also of a generation that fenced this host and that it has not opened. */
const newestOf = (head: Head, known: GroupState | undefined): Generation =>
  generation(Math.max(head.generation, known?.generation ?? 0, known?.across?.pending?.generation ?? 0, known?.across?.told ?? 0));

/** Generations that took over from one another count the same epochs. undefined: an older version's, which had no names. */
export const lineOf = ({ begun, life, line }: Head): string | undefined => (begun === 'protect' ? life : line?.life === life ? line?.root : undefined);
export const isOfLine = (head: Head, { line }: Across): boolean => line !== undefined && lineOf(head) === line;

/** A generation that this host knows of, and a ledger from a backup does not, is not begun a second time (D84). */
function decideBegin(view: LedgerView, head: Head, { given, life, known }: Asker & { readonly given: Generation | undefined }): Draft {
  if (head.phase === 'protected') {
    if (given === head.generation) return { reply: isOtherLife(head, known) ? otherLife(head) : IGNORED };
    return { reply: given !== undefined && given < head.generation ? fencedBy(head, given) : deny('already_protected', `group ${head.spec.group} is protected in generation ${head.generation}`) };
  }
  const newest = newestOf(head, known);
  const raised = given ?? generation(newest + 1);
  if (raised <= head.generation) return { reply: fencedBy(head, raised) };
  if (raised <= newest) return { reply: deny('fenced', `this host was told of generation ${newest}, the ledger says ${head.generation}: ${AFTER_BACKUP}${newest}, which names no life that was lost`) };
  if (looksLike(newest, raised)) return { reply: alike(newest, raised) };
  const begun: Head = { ...head, phase: 'protected', generation: raised, life, begun: 'protect', line: undefined, from: generation(0), fromLife: undefined, start: epoch(0) };
  return changed(view, begun, { begins: hostsOf(head.spec) });
}

function decideRaise(view: LedgerView, head: Head, takeover: CommandOf<'takeover'>, { life, known }: Asker): Draft {
  const behind = isBehind(view, head, known);
  if (behind !== undefined) return { reply: behind };
  if (head.phase !== 'protected') return { reply: deny('not_protected', `group ${head.spec.group} is not protected: protect it first`) };
  const spec = takeover.members === undefined ? head.spec : movedTo(head.spec, takeover.members);
  if (typeof spec === 'string') return { reply: deny('bad_request', spec) };
  if (takeover.generation <= head.generation) {
    const again = takeover.generation === head.generation && head.begun === 'takeover' && takeover.epoch === head.start && sameSpec(spec, head.spec);
    return { reply: again ? IGNORED : fencedBy(head, takeover.generation) };
  }
  const newest = newestOf(head, known);
  if (takeover.generation <= newest) return { reply: deny('fenced', `this host was told of generation ${newest}, the ledger says ${head.generation}: take over with a higher one`) };
  if (Math.max(takeover.generation, takeover.epoch) > NUMBER_MAX) return { reply: deny('bad_request', `use numbers up to ${NUMBER_MAX}`) };
  const like = [head.generation, newest].find((old) => looksLike(old, takeover.generation));
  if (like !== undefined) return { reply: alike(like, takeover.generation) };
  const to = committedOf(head, view);
  if (takeover.epoch < to) return { reply: deny('epoch_out_of_order', `all hosts have acked epoch ${to}, the world may have seen it: take over there`) };
  if (takeover.epoch > to) return { reply: deny('not_acked', `epoch ${takeover.epoch} is not acked by ${lateHosts(head, view, takeover.epoch).join(', ')}: take over at ${to}`) };
  const [witness] = hostsOf(head.spec).filter((host) => ackOf(head, view, host) === to);
  if (witness === undefined) throw new TypeError('no host has the least ack');
  const root = lineOf(head);
  const raised: Omit<Head, 'serial'> = { ...head, spec, generation: takeover.generation, life, begun: 'takeover', line: root === undefined ? undefined : { root, life }, from: head.generation, fromLife: head.life, start: to };
  return changed(view, raised, { begins: hostsOf(spec), witness: { host: witness, generation: head.generation, life: head.life, epoch: to } });
}

const AFTER_BACKUP = 'was etcd brought back from a backup? Stop the VMs, unprotect with held=discard, and protect again with a generation above ';
/**
 * What this host knows of the group the ledger must know too. One that was brought back from a backup
 * may not, and its R would be one that the world has seen more of (D84). undefined = it does.
 */
function isBehind(view: LedgerView, head: Head, known: GroupState | undefined): Reply | undefined {
  if (known?.across === undefined) return undefined;
  const asked = `${AFTER_BACKUP}${known.generation}, which names no life that was lost`;
  if (head.serial < known.across.serial) return deny('fenced', `this host was told of generation ${known.generation}, the ledger says ${head.generation}: ${asked}`);
  const isItsOwn = head.generation === known.generation && known.phase !== 'idle';
  if (isItsOwn && isOtherLife(head, known)) return known.phase === 'fenced' ? undefined : otherLife(head);
  if (!isItsOwn && (head.phase !== 'protected' || !isOfLine(head, known.across))) return undefined;
  const to = committedOf(head, view);
  return to < known.committed ? deny('epoch_out_of_order', `epoch ${known.committed} is committed here, the world has seen it, the ledger says ${to}: ${asked}`) : undefined;
}

const isOtherLife = (head: Head, known: GroupState | undefined): boolean =>
  known?.across !== undefined && known.generation === head.generation && known.across.life !== head.life;
const otherLife = (head: Head): Reply =>
  deny('fenced', `generation ${head.generation} of this host is another life than the ledger's: ${AFTER_BACKUP}${head.generation}, which names no life that was lost`);

/** Ended with release it must be by an engine of that life; with discard by anyone: it is the way out. */
function decideEnd(view: LedgerView, head: Head, { generation: given, held }: CommandOf<'unprotect'>, known: GroupState | undefined): Draft {
  if (given < head.generation) return { reply: fencedBy(head, given) };
  if (head.phase !== 'protected') return { reply: deny('not_protected', `group ${head.spec.group} is not protected`) };
  if (given > head.generation) return { reply: fencedBy(head, given) };
  if (held === 'release' && isOtherLife(head, known)) return { reply: otherLife(head) };
  return changed(view, { ...head, phase: 'idle', held }, { begins: [] });
}

function decideRemoval(view: LedgerView, head: Head): Draft {
  if (head.phase !== 'idle') return { reply: deny('already_protected', `group ${head.spec.group} is protected: unprotect it before you delete it`) };
  return changed(view, { ...head, phase: 'deleted' }, { begins: [] });
}

/** Between hosts a generation has four bits: frames of the one before must not pass for the new one's (I7). */
const WIRE_GENERATIONS = 16;
export const looksLike = (old: Generation, raised: Generation): boolean => old > 0 && (raised - old) % WIRE_GENERATIONS === 0;
const alike = (old: Generation, raised: Generation): Reply =>
  deny('bad_request', `between hosts generation ${raised} looks like ${old}, which it replaces: use another, best ${old + 1}`);

export const fencedBy = (head: Head, given: Generation): Reply =>
  deny('fenced', given < head.generation ? `generation ${given} is over, the group is at ${head.generation}: this engine was replaced` : `the group is at generation ${head.generation}: a takeover needs a higher one`);
