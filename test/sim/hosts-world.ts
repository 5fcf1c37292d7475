/**
 * Hosts of one group, a ledger between them, and everything that can go wrong, as a value: a state,
 * the moves it allows, the state after each. The machine of each host is the real one (step, resume,
 * decideHead); engine, VMs, network and outside world are models that know what really happened.
 *
 *    engine ─ cut, ack, takeover ─► step ─ effects ─► journal, ring, acks under way
 *                                     ▲                                │ in any order, twice, never
 *       any head that ever was, with ─┘◄──────────── ledger ◄──────────┘
 *       any acks up to the newest
 *
 * A view that a host is shown may be older than one it was shown before: more than a watch that
 * loses, repeats and shuffles can do. Only a host that has forgotten the group is never shown an
 * older head than before, which the ledger's client promises (its order is by revision). A pause is a host that makes no move. A frame that was ever
 * sent to other hosts may arrive at any time, again and again. Everything committed leaves at once,
 * which is the worst that a hold ring may do.
 *
 * What is checked, after every move, by who knows each frame's true execution:
 *   I1     a frame leaves only when every host's engine had its epoch durable, in its generation
 *   I4 I5  a takeover goes on from R: at least all that left, at most what all have durable
 *   I2 I7  a frame delivered to a VM is of the VM's own execution and not from its future
 *   I7     a command of an old generation is refused; I8: crashes and losses release nothing
 * I3, I6, I9 are the data plane's (hold ring, classifier) and are not here.
 */
import { heed, isMute } from '../../proxy/core/across.ts';
import { decideHead, hostsOf } from '../../proxy/core/hosts.ts';
import { resume } from '../../proxy/core/resume.ts';
import { step } from '../../proxy/core/step.ts';
import { colourDiff, epoch, generation } from '../../proxy/core/types.ts';
import type { Acked, Colour, Effect, Epoch, GroupSpec, GroupState, Head, Input, LedgerView, MemberSpec, Swap } from '../../proxy/core/types.ts';
import { colourOf, openOf } from '../../proxy/core/watermarks.ts';
import { EMPTY, ackKey, acked, swapped, viewOf } from './memory-ledger.ts';
import type { Store } from './memory-ledger.ts';
import { Violation } from './oracle.ts';

/** What a mutation swaps in. */
export interface Rules {
  readonly step: typeof step;
  readonly decideHead: typeof decideHead;
  readonly acked: typeof acked;
  /** The generation opens when it is heard of, without the engine's word. */
  readonly opensByItself: boolean;
  readonly journalsAcks: boolean;
}
export const RULES: Rules = { step, decideHead, acked, opensByItself: false, journalsAcks: true };

export interface Bounds {
  readonly hosts: number;
  readonly epochs: number;
  readonly takeovers: number;
  readonly crashes: number;
  readonly kills: number;
  /** Also protection ended and begun again. */
  readonly lives: number;
  /** The ledger is brought back from a backup, taken at any time since the last takeover; then protection ends and begins again. */
  readonly restores: number;
}

/** What a VM, or a frame, really is of. */
interface Execution {
  readonly life: string;
  readonly generation: number;
  readonly epoch: number;
}
interface Ringed extends Execution {
  readonly colour: Colour;
}
export interface Host {
  readonly name: string;
  readonly machine: 'up' | 'daemon dead' | 'dead';
  /** In memory; of a dead daemon, what the kernel still has. */
  readonly state: GroupState | undefined;
  /** As a killed process leaves it, and as a power cut does: without what was not synced. */
  readonly journal: GroupState | undefined;
  readonly disk: GroupState | undefined;
  readonly vm: Execution | undefined;
  readonly ring: readonly Ringed[];
  /** Newest head it was shown. */
  readonly shown: number;
}
export interface World {
  readonly store: Store;
  readonly heads: readonly Head[];
  /** Newest ack ever written, of every generation. */
  readonly written: Readonly<Record<string, Epoch>>;
  readonly hosts: readonly Host[];
  /** Acks under way: each may be written at any time, any number of times. */
  readonly acks: readonly Acked[];
  readonly swaps: readonly Swap[];
  /** Names on frames to other hosts, and what they really are. */
  readonly sent: readonly (Execution & { readonly as: Omit<Execution, 'life'> })[];
  /** life/host -> checkpoint that its engine has. */
  readonly durable: Readonly<Record<string, number>>;
  /** life -> last epoch of it that left any host. */
  readonly left: Readonly<Record<string, number>>;
  /** life -> R of the takeover that ended it. */
  readonly ended: Readonly<Record<string, number>>;
  readonly backup: Store | undefined;
  readonly used: { readonly takeovers: number; readonly crashes: number; readonly kills: number; readonly lives: number; readonly restores: number };
}
export interface Move {
  readonly what: string;
  readonly make: () => World;
}

const NAMES = ['h1', 'h2', 'h3', 'h4', 'h5'];

export function specFor(hosts: readonly string[]): GroupSpec {
  const members = hosts.map((host, i): MemberSpec => ({ name: `m${i + 1}`, host, nics: [{ port: `tap${i + 1}`, mac: `02:00:00:00:00:0${i + 1}`, vlan: 0 }] }));
  return { group: 'g', commit: 'acks', members, hold: { bytes: 1 << 20, highWater: 0.75 }, foreignSource: 'hold', intraPath: 'redirect', wire: { vlan: 7 } };
}

/** Applied and protected, and every host has heard of it. */
export function begin({ hosts }: Bounds): World {
  const names = NAMES.slice(0, hosts);
  const blank: Host = { name: '', machine: 'up', state: undefined, journal: undefined, disk: undefined, vm: undefined, ring: [], shown: 0 };
  let world: World = {
    store: EMPTY, heads: [], written: {}, hosts: names.map((name) => ({ ...blank, name })), acks: [], swaps: [], sent: [],
    durable: {}, left: {}, ended: {}, backup: undefined, used: { takeovers: 0, crashes: 0, kills: 0, lives: 0, restores: 0 },
  };
  for (const command of [{ kind: 'apply', spec: specFor(names) }, { kind: 'protect' }] as const) {
    const { swap } = decideHead(currentView(world), command, { life: nextLife(world), known: undefined });
    if (swap === undefined) throw new Error(`the world could not begin: ${command.kind}`);
    world = writeSwap(world, swap);
    for (const name of names) world = take(RULES, world, name, { kind: 'ledger', self: name, view: currentView(world) });
  }
  return { ...world, hosts: world.hosts.map((host) => ({ ...host, vm: { life: world.store.head?.life ?? '', generation: 1, epoch: 1 } })) };
}

/** Of two that are decided at the same time one is refused. */
const nextLife = ({ heads, swaps }: World): string => `L${heads.length}.${swaps.length}`;
const currentView = ({ store }: World): LedgerView => viewOf(store.head, store.revision, store.acks);
const put = (world: World, host: Host): World => ({ ...world, hosts: world.hosts.map((one) => (one.name === host.name ? host : one)) });
const hostOf = (world: World, name: string): Host => {
  const host = world.hosts.find((one) => one.name === name);
  if (host === undefined) throw new Error(`no host ${name}`);
  return host;
};

function writeSwap(world: World, swap: Swap): World {
  const store = swapped(world.store, swap);
  const swaps = world.swaps.filter((one) => one !== swap);
  if (store === undefined) return { ...world, swaps };
  const { head } = swap;
  const next = { ...world, store, swaps, heads: [...world.heads, head], written: { ...world.written, ...store.acks } };
  if (head.phase !== 'protected' || head.begun !== 'takeover') return next;
  const old = world.store.head;
  const from = head.fromLife ?? '';
  if (head.start < (world.left[from] ?? 0)) throw new Violation(`I5 exact release: takeover to ${head.start}, but epoch ${world.left[from]} of generation ${head.from} has left`);
  for (const host of hostsOf(old?.spec ?? head.spec)) {
    if (head.start > durableOf(world, { life: from, host })) throw new Violation(`I4 one line: takeover to ${head.start}, which ${host} has no checkpoint of in generation ${head.from}`);
  }
  return { ...next, ended: { ...world.ended, [from]: head.start } };
}

/** A generation begins with every host having its start. */
function durableOf(world: World, of: { life: string; host: string }): number {
  const begun = world.heads.find((head) => head.life === of.life && head.phase === 'protected');
  return Math.max(begun?.start ?? 0, world.durable[`${of.life}/${of.host}`] ?? 0);
}

function left(world: World, frame: Ringed): World {
  const head = world.heads.find((one) => one.life === frame.life && one.phase === 'protected');
  for (const host of head === undefined ? [] : hostsOf(head.spec)) {
    if (durableOf(world, { life: frame.life, host }) < frame.epoch) throw new Violation(`I1 output commit: epoch ${frame.epoch} of generation ${frame.generation} leaves, ${host} has no checkpoint of it`);
  }
  const end = world.ended[frame.life];
  if (end !== undefined && frame.epoch > end) throw new Violation(`I7 fencing: epoch ${frame.epoch} leaves, generation ${frame.generation} ended at ${end}`);
  return { ...world, left: { ...world.left, [frame.life]: Math.max(world.left[frame.life] ?? 0, frame.epoch) } };
}

function leave(world: World, name: string, goes: (frame: Ringed) => boolean): World {
  const host = hostOf(world, name);
  const next = host.ring.filter(goes).reduce(left, world);
  return put(next, { ...host, ring: host.ring.filter((frame) => !goes(frame)) });
}

/** Effects in the order in which the executor performs them. */
function perform(world: World, name: string, effect: Effect, state: GroupState | undefined): World {
  const host = hostOf(world, name);
  switch (effect.kind) {
    case 'persist':
      return put(world, { ...host, journal: state, disk: effect.durable ? state : host.disk });
    case 'forget': return put(world, { ...host, journal: undefined, disk: undefined });
    case 'publish': return { ...world, acks: [...world.acks, { host: name, generation: effect.generation, life: effect.life, epoch: effect.epoch }] };
    case 'release': return leave(world, name, (frame) => colourDiff(frame.colour, effect.colour) <= 0);
    case 'restore': {
      const out = leave(world, name, (frame) => colourDiff(frame.colour, effect.restored) <= 0);
      return put(out, { ...hostOf(out, name), ring: hostOf(out, name).ring.filter((frame) => colourDiff(frame.colour, effect.next) >= 0) });
    }
    case 'attach': return put(world, { ...host, vm: state?.phase === 'protected' && state.takeover === undefined && host.vm?.life !== state.across?.life ? { life: state.across?.life ?? '', generation: state.generation, epoch: state.sealed + 1 } : host.vm });
    case 'detach': return put(world, { ...host, ring: [] });
    default: return world;
  }
}

function take(rules: Rules, world: World, name: string, input: Input, vm?: Execution): World {
  const host = hostOf(world, name);
  const taken = rules.step(host.state, input);
  if (taken.reply.outcome !== 'accepted') return world;
  const shown = input.kind === 'ledger' ? Math.max(host.shown, input.view.head?.serial ?? 0) : host.shown;
  let next = put(world, { ...host, shown, state: taken.state, ...(vm === undefined ? {} : { vm }) });
  const effects = rules.journalsAcks || input.kind !== 'ack' ? taken.effects : taken.effects.filter(({ kind }) => kind !== 'persist');
  for (const effect of effects) next = perform(next, name, effect, taken.state);
  return next;
}

function isGating(state: GroupState | undefined): state is GroupState {
  return state !== undefined && (state.phase === 'protected' || state.phase === 'fenced');
}

/** Every VM speaks to everybody, all the time. */
function speak(world: World): World {
  let { sent } = world;
  const hosts = world.hosts.map((host) => {
    const { vm, state } = host;
    if (vm === undefined || host.machine === 'dead' || !isGating(state)) return host;
    const open = openOf(state);
    const as = { generation: state.generation, epoch: open };
    if (!isMute(state) && !sent.some((one) => one.life === vm.life && one.epoch === vm.epoch && one.as.generation === as.generation && one.as.epoch === as.epoch)) sent = [...sent, { ...vm, as }];
    const colour = colourOf(state, open);
    const has = host.ring.some((frame) => frame.colour === colour && frame.life === vm.life && frame.epoch === vm.epoch);
    return has || host.machine !== 'up' ? host : { ...host, ring: [...host.ring, { ...vm, colour }] };
  });
  return { ...world, hosts, sent };
}
/** Any frame that was ever sent arrives now, at every host. */
function checkArrivals(world: World): void {
  for (const { vm, machine, state } of world.hosts) {
    if (vm === undefined || machine === 'dead' || !isGating(state) || isMute(state)) continue;
    for (const frame of world.sent) {
      if (frame.as.generation !== state.generation || frame.as.epoch > openOf(state)) continue; // dies, or waits (early)
      if (frame.life !== vm.life && frame.generation === vm.generation && world.used.restores > 0) continue; // a number given twice: the VMs of the first were stopped (D84)
      if (frame.life !== vm.life) throw new Violation(`I7 fencing: a frame of generation ${frame.generation} reaches a VM of generation ${vm.generation}`);
      if (frame.epoch > vm.epoch) throw new Violation(`I2 no orphan: a frame of epoch ${frame.epoch} reaches a VM in epoch ${vm.epoch}`);
    }
  }
}

export function moves(rules: Rules, bounds: Bounds, world: World): readonly Move[] {
  const list: Move[] = [];
  const offer = (what: string, make: () => World): void => {
    list.push({ what, make: () => {
      const next = speak(make());
      checkArrivals(next);
      return next;
    } });
  };
  for (const write of world.acks) {
    const store = rules.acked(world.store, write);
    if (store !== undefined) offer(`write ack ${write.generation}/${write.host} ${write.epoch}`, () => ({ ...world, store, written: { ...world.written, [ackKey(write)]: write.epoch } }));
  }
  for (const swap of world.swaps) offer(`swap to generation ${swap.head.generation} ${swap.head.phase}`, () => writeSwap(world, swap));
  if (world.used.restores < bounds.restores) {
    const { backup, store } = world;
    const isBeforeTakeover = world.heads.slice(backup?.revision).some(({ begun, life }) => begun === 'takeover' && life !== backup?.head?.life);
    if (backup !== undefined && !isBeforeTakeover) offer('the ledger is brought back', () => broughtBack(world, backup));
    if (backup === undefined) offer('a backup of the ledger', () => ({ ...world, backup: store }));
  }
  for (const host of world.hosts) hostMoves(rules, bounds, world, host, offer);
  return list;
}

/** What was asked of it is over; acks are said again, by hosts that still know their life for the newest. */
function broughtBack(world: World, store: Store): World {
  const isOfNewest = ({ host, life }: Acked): boolean => {
    const across = hostOf(world, host).state?.across;
    return across !== undefined && (across.pending?.life ?? across.life) === life;
  };
  return { ...world, store, swaps: [], acks: world.acks.filter(isOfNewest), used: { ...world.used, restores: world.used.restores + 1 } };
}

type Offer = (what: string, make: () => World) => void;

function hostMoves(rules: Rules, bounds: Bounds, world: World, host: Host, offer: Offer): void {
  const { name, state, machine } = host;
  if (machine === 'dead') return;
  if (world.used.kills < bounds.kills) {
    offer(`${name} dies`, () => ({ ...put(world, { ...host, machine: 'dead', vm: undefined, ring: [] }), used: { ...world.used, kills: world.used.kills + 1 } }));
  }
  if (machine === 'daemon dead') return offer(`${name} restarts`, () => restart(world, host));
  if (world.used.crashes < bounds.crashes && state !== undefined) {
    offer(`${name} loses power`, () => ({ ...put(world, { ...host, machine: 'daemon dead', vm: undefined, ring: [], journal: host.disk }), used: { ...world.used, crashes: world.used.crashes + 1 } }));
    offer(`${name} crashes`, () => ({ ...put(world, { ...host, machine: 'daemon dead', ring: [] }), used: { ...world.used, crashes: world.used.crashes + 1 } }));
  }
  viewMoves(rules, world, host, offer);
  if (state !== undefined) engineMoves(rules, bounds, world, host, state, offer);
  headMoves(rules, bounds, world, host, offer);
}

function restart(world: World, host: Host): World {
  if (host.journal === undefined) return put(world, { ...host, machine: 'up', state: undefined });
  const { state, effects } = resume(host.journal);
  return effects.reduce((next, effect) => perform(next, host.name, effect, state), put(world, { ...host, machine: 'up', state }));
}

function viewMoves(rules: Rules, world: World, { name, state, shown }: Host, offer: Offer): void {
  for (const [index, head] of world.heads.entries()) {
    if (state === undefined && head.serial < shown) continue;
    if (head.serial < (state?.across?.serial ?? 0) && rules === RULES) continue; // nothing to it: the mutations' walks make these too
    const newest = Object.values(viewOf(head, 0, world.written).acks);
    for (const least of new Set([Number.MAX_SAFE_INTEGER, ...newest])) {
      const acks = Object.fromEntries(Object.entries(viewOf(head, 0, world.written).acks).map(([host, e]) => [host, epoch(Math.min(e, least))]));
      const input: Input = { kind: 'ledger', self: name, view: { head, revision: index + 1, acks } };
      if (rules === RULES && heed(state, input) === undefined) continue;
      offer(`${name} sees head ${head.serial}, acks ${JSON.stringify(acks)}`, () => seen(rules, world, name, input));
    }
  }
}

function seen(rules: Rules, world: World, name: string, input: Input): World {
  const next = take(rules, world, name, input);
  const pending = hostOf(next, name).state?.across?.pending;
  if (!rules.opensByItself || pending?.phase !== 'protected') return next;
  return take(rules, next, name, { kind: 'takeover', generation: pending.generation, epoch: pending.start });
}

function engineMoves(rules: Rules, bounds: Bounds, world: World, host: Host, state: GroupState, offer: Offer): void {
  const { name, vm } = host;
  const pending = state.across?.pending;
  if (vm !== undefined) {
    // The engine says what it believes: the generation of its VMs. A step that knows better refuses.
    const at = generation(vm.generation);
    const cut: Input = { kind: 'cut', generation: at, epoch: epoch(vm.epoch) };
    const isOld = state.phase === 'protected' && vm.generation < state.generation;
    const vain = rules.step(state, cut).reply.outcome === 'accepted' ? '' : ' in vain';
    if (vm.epoch <= bounds.epochs) offer(`${name} cuts ${vm.epoch}${vain}`, () => refusedIf(isOld, world, take(rules, world, name, cut, { ...vm, epoch: vm.epoch + 1 })));
    const next = durableOf(world, { life: vm.life, host: name }) + 1;
    if (next < vm.epoch) {
      const durable = { ...world.durable, [`${vm.life}/${name}`]: next };
      offer(`${name} acks ${next}`, () => take(rules, { ...world, durable }, name, { kind: 'ack', generation: at, epoch: epoch(next) }));
    }
    const said = durableOf(world, { life: vm.life, host: name });
    if (said > state.acked && state.phase === 'protected' && said <= state.sealed) offer(`${name} acks ${said} again`, () => take(rules, world, name, { kind: 'ack', generation: at, epoch: epoch(said) }));
  }
  if (pending?.phase === 'protected' && hostsOf(pending.spec).includes(name)) {
    const vmThen = { life: pending.life ?? '', generation: pending.generation, epoch: pending.start + 1 };
    offer(`${name} opens generation ${pending.generation} at ${pending.start}`, () => take(rules, world, name, { kind: 'takeover', generation: pending.generation, epoch: pending.start }, vmThen));
  }
  if (state.phase === 'fenced') {
    offer(`${name} gives up its old VMs`, () => put2(take(rules, world, name, { kind: 'unprotect', generation: state.generation, held: 'discard' }), name));
  }
}

const put2 = (world: World, name: string): World => put(world, { ...hostOf(world, name), vm: undefined });

function refusedIf(isOld: boolean, before: World, after: World): World {
  if (isOld && before !== after) throw new Violation('I7 fencing: a command of an old generation was accepted');
  return after;
}

/** Any host may begin a takeover at any time, for any reason; the swap is under way for as long as it likes. */
function headMoves(rules: Rules, bounds: Bounds, world: World, host: Host, offer: Offer): void {
  const { head } = world.store;
  if (head === undefined || world.swaps.length > 1) return;
  const isOfBackup = world.backup?.head?.life === head.life && world.used.restores > 0; // whose R may be one that the world has seen more of
  if (head.phase === 'protected' && world.used.takeovers < bounds.takeovers && !isOfBackup) {
    for (const without of [undefined, ...world.hosts.map(({ name }) => name)]) {
      const to = without === host.name ? undefined : host.name;
      if (to === undefined || (without !== undefined && !hostsOf(head.spec).includes(without))) continue;
      const members = head.spec.members.map((member) => (member.host === without ? { ...member, host: to } : member));
      const view = currentView(world);
      const e = epoch(hostsOf(head.spec).reduce((least, one) => Math.min(least, view.acks[one] ?? head.start), Number.MAX_SAFE_INTEGER));
      const { swap } = rules.decideHead(view, { kind: 'takeover', generation: generation(head.generation + 1), epoch: e, members }, { life: nextLife(world), known: host.state });
      for (const asked of swap === undefined ? [] : witnessed(view, head, swap)) {
        offer(`${host.name} takes over ${without ?? 'in place'}`, () => ({ ...world, swaps: [...world.swaps, asked], used: { ...world.used, takeovers: world.used.takeovers + 1 } }));
      }
    }
  }
  if (world.used.lives >= bounds.lives) return;
  const command = head.phase === 'protected' ? ({ kind: 'unprotect', generation: head.generation, held: 'discard' } as const) : ({ kind: 'protect' } as const);
  const { swap } = rules.decideHead(currentView(world), command, { life: nextLife(world), known: host.state });
  if (swap !== undefined) offer(`${host.name} asks ${command.kind}`, () => ({ ...world, swaps: [...world.swaps, swap], used: { ...world.used, lives: world.used.lives + 1 } }));
}

/** Of hosts whose ack is R any may be the witness: the code takes the first by name, which is no part of the protocol. */
function witnessed(view: LedgerView, head: Head, swap: Swap): readonly Swap[] {
  const { witness } = swap;
  if (witness === undefined) return [swap];
  const atR = hostsOf(head.spec).filter((host) => (view.acks[host] ?? head.start) === witness.epoch);
  return atR.map((host) => ({ ...swap, witness: { ...witness, host } }));
}
