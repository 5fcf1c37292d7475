/**
 * Performs a step's effects on one group's part of the world, in order.
 *
 *    step ──► [ persist | move … | emit … ]
 *                 │          │
 *                 │          └ fails ─┬ onFailure back:    undo, journal the state before; as if never asked
 *                 │                   └ onFailure forward: it is decided; the rest is *owed*
 *                 └ fails ──► nothing was done: memory stays at the state before (the group holds)
 *
 * What is owed is done before anything else of the group (`settle`); until then its commands are
 * answered `plane_down`. Every effect may therefore be performed again: each brings the world to
 * what it says instead of by a step towards it. Nothing here decides; `step` did.
 *
 * A hold pair that is lost while the daemon runs is owed like anything else: attach again (`reopen`).
 *
 * Orders that matter, and what each would cost if it were the other way round:
 *   attach     gate, then commit cell, then ring: a ring never sends while the kernel's own bound
 *              (D4) is a stale one of an earlier protection.
 *   cut        what has arrived is decided (where that takes a while), label, then the one store, then the receivers: an early frame goes only when its
 *              receiver's cell says so (I2).
 *   ready      cell, then receiver: what queued for a new member leaves before new frames pass (I6).
 *   release    commit cell, then cursor: the other way the kernel would refuse the first frames.
 *   restore    colour, then wire, then commit cell, then ring: a frame classified after the reply has the new
 *              colour; one that was on its way has a dead one and is dropped (I5, I7).
 *   detach     ring, then gate: a frame that the ring still sent would come after newer ones that
 *              pass already (I6); what the kernel holds into a closed ring is only lost.
 *   leave      drain, gate, drain: what came between the first two is dropped, for nobody asks for it.
 *   drain      flag, then ring: the kernel lets frames of any colour out only while draining.
 */
import { isMute } from '../core/across.ts';
import { colourDiff } from '../core/types.ts';
import type { Colour, CoreEvent, Effect, Epoch, GroupState, MemberState, Step, Wire } from '../core/types.ts';
import { steppedBack } from '../core/step.ts';
import { colourOf, localOf, openOf } from '../core/watermarks.ts';
import { EdgeError } from '../ports.ts';
import type { Announcer, AttachResult, Gate, GateMember, GateWire, GroupId, HoldPlane, Journal, Ledger, NicIndex } from '../ports.ts';
import { after } from './soon.ts';
import type { Soon } from './soon.ts';

export interface World {
  readonly journal: Journal;
  readonly gate: Gate;
  readonly plane: HoldPlane;
  readonly announcer: Announcer;
  /** Absent: groups of this host alone, for which the journal is the ledger. */
  readonly ledger?: Ledger;
}
export interface ExecutorHooks {
  emit(event: CoreEvent, state: GroupState | undefined): void;
  /** unprotect(release) of the present attachment is through. */
  drained(): void;
  /** Something failed that no caller waits for. */
  trouble(error: EdgeError): void;
}
export interface Outcome {
  /** What the memory holds from now on. */
  readonly state: GroupState | undefined;
  readonly error?: EdgeError;
}

interface Failure {
  /** Of the effects, which. */
  readonly at: number;
  readonly error: EdgeError;
}

type EffectOf<K extends Effect['kind']> = Extract<Effect, { kind: K }>;
/** An effect without a handler does not compile. */
type Handlers = { readonly [K in Effect['kind']]: (effect: EffectOf<K>, state: GroupState | undefined) => void | Promise<void> };
interface Owed {
  readonly effects: readonly Effect[];
  readonly state: GroupState | undefined;
}

/**
 * A member's own cell is only written when it is cut alone; left alone for 2^31 colours it would
 * count as ahead of the group's (serial arithmetic). So cells follow the group's this often.
 */
const CELLS_FOLLOW_COLOURS = 2 ** 20;

export class Executor {
  readonly id: GroupId;
  readonly #group: string;
  readonly #world: World;
  readonly #hooks: ExecutorHooks;
  #attached: AttachResult | undefined;
  /** Counts attachments, so that the end of an earlier one's drain is not taken for this one's. */
  #session = 0;
  #cellsFollowed: Colour | undefined;
  /** Of the effects performed last: what an announcement that is said again is compared with. */
  #latest: GroupState | undefined;
  #owed: Owed | undefined;
  #owedWhy: EdgeError | undefined;

  constructor(id: GroupId, group: string, world: World, hooks: ExecutorHooks) {
    this.id = id;
    this.#group = group;
    this.#world = world;
    this.#hooks = hooks;
  }

  get attached(): AttachResult | undefined {
    return this.#attached;
  }
  /** Why something is owed; undefined = all is in place. */
  get owes(): EdgeError | undefined {
    return this.#owedWhy;
  }

  /** At once where no effect takes time. Rejects, or throws, only for a fault of the program. */
  perform(before: GroupState | undefined, taken: Step): Soon<Outcome> {
    return after(this.#run(taken.effects, taken.state), (failure) => this.#outcome(before, taken, failure));
  }

  #outcome(before: GroupState | undefined, taken: Step, failure: Failure | undefined): Soon<Outcome> {
    if (failure === undefined) return { state: taken.state };
    const failed = taken.effects[failure.at]?.kind;
    if (failed === 'persist' || failed === 'forget') return { state: before, error: failure.error };
    if (taken.onFailure === 'back') return this.#back(before, taken, failure.error);
    this.owe(taken.effects.slice(failure.at), taken.state, failure.error);
    return { state: taken.state, error: recorded(failure.error) };
  }

  owe(effects: readonly Effect[], state: GroupState | undefined, why: EdgeError): void {
    this.#owed = { effects, state };
    this.#owedWhy = why;
  }

  /**
   * Its hold pair was lost, and with it what was held: the ring must be opened again, on the new
   * one, in the colour that is open. What of the committed had not left never will: it is said again.
   */
  reopen(state: GroupState | undefined): void {
    const now = this.#owed === undefined ? state : this.#owed.state;
    if (now === undefined || now.phase === 'idle' || this.#attached === undefined) return;
    const open = openOf(now);
    const again: readonly Effect[] = [
      { kind: 'attach', colour: colourOf(now, open), epoch: open },
      { kind: 'release', colour: colourOf(now, now.committed) },
    ];
    const rest = (this.#owed?.effects ?? []).filter((owed) => !(owed.kind === 'attach' || owed.kind === 'release'));
    this.owe([...again, ...rest], now, new EdgeError('plane_down', 'its hold device was lost', 'it is opened again as soon as the gate has made a new one'));
  }

  /** Does what is owed. Throws the EdgeError when it still cannot be done. */
  async settle(): Promise<void> {
    const owed = this.#owed;
    if (owed === undefined) return;
    const failure = await this.#run(owed.effects, owed.state);
    if (failure === undefined) {
      this.#owed = undefined;
      this.#owedWhy = undefined;
      return;
    }
    this.owe(owed.effects.slice(failure.at), owed.state, failure.error);
    throw failure.error;
  }

  /** As if the step had never been asked for; only its colours stay used. */
  async #back(before: GroupState | undefined, taken: Step, error: EdgeError): Promise<Outcome> {
    const state = steppedBack(before, taken.state);
    const world: Effect = before?.phase === 'protected' ? { kind: 'reattach' } : { kind: 'detach' };
    const undo: readonly Effect[] = [world, { kind: 'persist', durable: true }];
    const failure = await this.#run(undo, state);
    if (failure !== undefined) this.owe(undo.slice(failure.at), state, failure.error);
    return { state, error };
  }

  /** undefined = all done. Only operating errors are values; a fault of the program goes through. */
  #run(effects: readonly Effect[], state: GroupState | undefined, from = 0): Soon<Failure | undefined> {
    this.#latest = state;
    for (let at = from; at < effects.length; at += 1) {
      try {
        const done = this.#perform(effects[at]!, state);
        if (done !== undefined) return done.then(() => this.#run(effects, state, at + 1), (error: unknown) => failedAt(at, error));
      } catch (error) {
        return failedAt(at, error);
      }
    }
    return undefined;
  }

  #perform<K extends Effect['kind']>(effect: EffectOf<K>, state: GroupState | undefined): void | Promise<void> {
    const handler: Handlers[K] = this.#handlers[effect.kind];
    return handler(effect, state);
  }

  readonly #handlers: Handlers = {
    persist: ({ durable }, state) => this.#world.journal.append({ id: this.id, state: mustHave(state) }, durable),
    forget: () => this.#world.journal.forget(this.#group),
    attach: ({ colour, epoch }, state) => this.#attach(colour, epoch, mustHave(state)),
    detach: () => this.#detach(),
    reattach: (_effect, state) => this.#reattach(mustHave(state)),
    cutGroup: ({ colour, epoch }, state) => {
      const cut = (): void => { this.#cutGroup(colour, epoch, mustHave(state)); };
      return this.#world.gate.caughtUp === undefined ? cut() : this.#world.gate.caughtUp().then(cut);
    },
    cutMember: async ({ member, colour, epoch }, state) => {
      await this.#world.gate.caughtUp?.();
      this.#world.plane.advance(this.id, colour, epoch);
      this.#world.gate.setMemberColour(this.id, member, colour);
      this.#receivers(colour, mustHave(state), (one) => one.name === member);
    },
    release: ({ colour }) => {
      this.#world.gate.setCommit(this.id, colour);
      this.#world.plane.release(this.id, colour);
    },
    restore: async ({ restored, next, epoch }, state) => {
      await this.#world.gate.caughtUp?.();
      const wire = wireOf(mustHave(state));
      if (wire !== undefined) this.#world.gate.setWire?.(this.id, undefined);
      this.#world.gate.setColour(this.id, next);
      if (wire !== undefined) this.#world.gate.setWire?.(this.id, wire);
      this.#world.gate.setCommit(this.id, restored);
      await this.#world.plane.restore(this.id, restored, next, epoch);
    },
    drainMember: async ({ member, held }) => {
      if (held === 'release') this.#world.gate.setDraining(this.id, member);
      await this.#world.plane.drain(this.id, this.#nicsOf([member]), held);
    },
    ready: ({ member }, state) => {
      const now = mustHave(state);
      const one = gateMembers(now).find(({ name }) => name === member);
      this.#world.gate.setReady(this.id, member);
      if (one !== undefined) this.#world.plane.receiver(this.id, this.#nicsOf([member]), one.colour);
    },
    publish: ({ generation, life, epoch }) => {
      this.#world.ledger?.publish(this.#group, { generation, life, epoch });
    },
    closeWire: (_effect, state) => this.#world.gate.setWire?.(this.id, wireOf(mustHave(state))),
    drain: () => {
      this.#drain();
    },
    // Not waited for: VMs stand still until the takeover is answered.
    announce: (_effect, state) => void this.#announce(mustHave(state)),
    emit: ({ event }, state) => {
      this.#hooks.emit(event, state);
    },
  };

  async #attach(colour: Colour, epoch: Epoch, state: GroupState): Promise<void> {
    const { gate, plane } = this.#world;
    const attached = await gate.attach(this.id, state.spec, colour, gateMembers(state), wireOf(state));
    gate.setCommit(this.id, colourOf(state, state.committed));
    const { holdDevice, ringDevice, poolDevice } = attached;
    const { bytes, highWater } = state.spec.hold;
    await plane.open(this.id, { holdDevice, ringDevice, ...(poolDevice === undefined ? {} : { poolDevice }), bytes, highWater, colour, epoch, newest: newestOf(state, colour) });
    for (const member of state.members) {
      if (member.sealed > state.sealed) plane.advance(this.id, colourOf(state, openOf(member)), openOf(member));
    }
    this.#attached = attached;
    this.#session += 1;
    this.#cellsFollowed = colour;
    for (const one of gateMembers(state)) this.#receivers(one.colour, state, ({ name }) => name === one.name);
  }

  /** Frames for a member that left, queued between its drain and now, would wait for whoever is next. */
  async #reattach(state: GroupState): Promise<void> {
    const before = this.#attached?.nics ?? [];
    const attached = await this.#world.gate.reattach(this.id, state.spec, gateMembers(state), wireOf(state));
    const gone = before.map(({ nic }) => nic).filter((nic) => !attached.nics.some((kept) => kept.nic === nic));
    if (gone.length > 0) await this.#world.plane.drain(this.id, gone, 'discard');
    this.#attached = attached;
  }

  async #detach(): Promise<void> {
    await this.#world.plane.close(this.id);
    await this.#world.gate.detach(this.id);
    this.#attached = undefined;
    this.#session += 1;
  }

  #cutGroup(colour: Colour, epoch: Epoch, state: GroupState): void {
    const { gate, plane } = this.#world;
    plane.advance(this.id, colour, epoch);
    gate.setColour(this.id, colour);
    this.#receivers(colour, state, (member) => openOf(member) === epoch);
    if (this.#cellsFollowed !== undefined && colourDiff(colour, this.#cellsFollowed) < CELLS_FOLLOW_COLOURS) return;
    for (const { name, colour: own } of gateMembers(state)) gate.setMemberColour(this.id, name, own);
    this.#cellsFollowed = colour;
  }

  /** The ring knows nothing of readiness: of a member that is not, it hears nothing until it is (I6). */
  #receivers(colour: Colour, state: GroupState, which: (member: MemberState) => boolean): void {
    const names = state.members.filter((member) => member.ready && which(member)).map(({ name }) => name);
    if (names.length > 0) this.#world.plane.receiver(this.id, this.#nicsOf(names), colour);
  }

  /** Not waited for: frames leave as fast as the plane can, and the fact comes when it is through. */
  #drain(): void {
    const session = this.#session;
    this.#world.gate.setDraining(this.id, undefined);
    this.#world.plane.drain(this.id, undefined, 'release').then(
      () => {
        if (session === this.#session) this.#hooks.drained();
      },
      (error: unknown) => {
        if (session === this.#session) this.#hooks.trouble(asEdgeError(error));
      },
    );
  }

  /** The network learns the new place a little later by the guests' own frames: no reason to fail. */
  async #announce(state: GroupState): Promise<void> {
    try {
      await this.#world.announcer.announce(this.id, { ...state.spec, members: localOf(state) }, this.#attached?.nics ?? [], () => isStillAt(state, this.#latest));
    } catch (error) {
      this.#hooks.trouble(asEdgeError(error));
    }
  }

  #nicsOf(members: readonly string[]): readonly NicIndex[] {
    return (this.#attached?.nics ?? []).filter(({ member }) => members.includes(member)).map(({ nic }) => nic);
  }
}

/** The group is where it was announced to be: nobody has taken it over since, and no member has left. */
const isStillAt = (announced: GroupState, now: GroupState | undefined): boolean =>
  now?.phase === 'protected' && now.generation === announced.generation && now.spec === announced.spec;

const newestOf = (state: GroupState, colour: Colour): Colour =>
  gateMembers(state).reduce((newest, { colour: own }) => (colourDiff(own, newest) > 0 ? own : newest), colour);

const gateMembers = (state: GroupState): readonly GateMember[] =>
  state.members.map((member) => ({ name: member.name, colour: colourOf(state, openOf(member)), ready: member.ready }));

function wireOf(state: GroupState): GateWire | undefined {
  const { across, spec, generation, colourBase } = state;
  return across === undefined || spec.wire === undefined ? undefined : { self: across.self, ...roadOf(spec.wire), generation, base: colourBase, closed: isMute(state) };
}
const roadOf = (wire: Wire): Pick<GateWire, 'vlan' | 'vxlan'> =>
  ('vlan' in wire ? { vlan: wire.vlan } : { vlan: 0, vxlan: { vni: wire.vxlan, hosts: wire.hosts } });

function failedAt(at: number, error: unknown): Failure {
  if (error instanceof EdgeError) return { at, error };
  throw error;
}

const recorded = (error: EdgeError): EdgeError =>
  new EdgeError('plane_down', `${error.message}; the command is recorded and is carried out when that is mended`, error.fix, error);

export const asEdgeError = (error: unknown): EdgeError =>
  error instanceof EdgeError ? error : new EdgeError('plane_down', error instanceof Error ? error.message : String(error), 'look at the log of the daemon', error);

function mustHave(state: GroupState | undefined): GroupState {
  if (state === undefined) throw new TypeError('an effect of a group that is not there');
  return state;
}
