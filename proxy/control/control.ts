/**
 * All groups of the daemon: who they are, which number each has in the kernel, who claims a port.
 *
 *    submit(group, command) ──► Group ──► answer          plane facts ──► the group's mailbox
 *                                 └──► events ──► listeners ◄── output-pending, high-water, overflow
 *
 * Groups don't wait for each other; they share only the journal, which shares its syncs. Bounds:
 * 256 groups (cells of the kernel's map), `COMMANDS_MAX` (group.ts) commands waiting for each.
 * A fault of the program (a broken invariant) or a dead hold loop is told to `onFatal`, everybody
 * who waits is answered, and nothing is taken any more: the process should end, the kernel holds.
 */
import { randomBytes } from 'node:crypto';
import type { Command, CoreEvent, DenialCode, GroupSpec, GroupState, HostProgress, NicSpec } from '../core/types.ts';
import { deny, localOf } from '../core/watermarks.ts';
import { EdgeError } from '../ports.ts';
import type { AttachResult, GroupId, JournalRecord, PlaneFact } from '../ports.ts';
import { asEdgeError } from './executor.ts';
import type { World } from './executor.ts';
import { Group } from './group.ts';
import type { Answer } from './group.ts';
import { Hosts } from './hosts.ts';

export type { Answer } from './group.ts';

/** Groups of one daemon (abi.h); a further one is denied. */
export const GROUPS_MAX = 256;
const LIFE_BYTES = 8;

export type PlaneEvent =
  | { readonly type: 'output-pending'; readonly epoch: number }
  | { readonly type: 'high-water'; readonly occupancy: number; readonly heldBytes: number }
  | { readonly type: 'overflow'; readonly frames: number };
export interface ControlEvent {
  readonly group: string;
  readonly generation: number;
  readonly event: CoreEvent | PlaneEvent;
}
export interface ControlOptions extends World {
  /** Something failed and will be tried again; nobody waits for it. */
  readonly trouble: (group: string, error: EdgeError) => void;
  /** A sentence while this host is cut off: then it takes nothing over. */
  readonly isolated?: () => string | undefined;
  /** A name that no generation of a group across hosts had before. Default: 64 random bits. */
  readonly nextLife?: () => string;
  /** Default: setTimeout. */
  readonly later?: (run: () => void, ms: number) => () => void;
}

const denied = (code: DenialCode, message: string, state: GroupState | undefined): Promise<Answer> => Promise.resolve({ reply: deny(code, message), state });

function afterMs(run: () => void, ms: number): () => void {
  const timer = setTimeout(run, ms);
  timer.unref();
  return () => {
    clearTimeout(timer);
  };
}

export class Control {
  readonly #options: ControlOptions;
  readonly #groups = new Map<string, Group>();
  readonly #byId = new Map<GroupId, Group>();
  /** port -> group, of all groups' specs and of what is just being applied. */
  readonly #claims = new Map<string, string>();
  /** The same by group, and what it had once: all claims of many groups are too many to look through after each command. */
  readonly #claimedBy = new Map<string, Set<string>>();
  /** By what spec a group has its claims; absent: they are to be looked at anew. */
  readonly #claimedFor = new Map<string, GroupSpec>();
  readonly #eventListeners = new Set<(event: ControlEvent) => void>();
  readonly #fatalListeners = new Set<(reason: Error) => void>();
  readonly #hosts: Hosts | undefined;
  #closed: EdgeError | undefined;

  constructor(options: ControlOptions) {
    this.#options = options;
    this.#hosts = options.ledger === undefined ? undefined : new Hosts(options.ledger, {
      find: (name) => this.#groups.get(name),
      make: (name) => this.#create(name),
      claimed: (name, command) => this.#claimed(name, command),
    }, { isolated: options.isolated ?? (() => undefined), nextLife: options.nextLife ?? (() => randomBytes(LIFE_BYTES).toString('hex')) });
    options.plane.onFact((fact) => {
      this.#fact(fact);
    });
  }

  /** Takes up the journalled groups. What could not be put in place is owed, retried, and returned. */
  async start(records: readonly JournalRecord[]): Promise<readonly { readonly group: string; readonly error: EdgeError }[]> {
    const failed: { group: string; error: EdgeError }[] = [];
    for (const { id, state } of records) {
      const name = state.spec.group;
      if (this.#byId.has(id) || this.#groups.has(name) || id < 0 || id >= GROUPS_MAX) {
        throw new EdgeError('journal_failed', `the journal names group ${name} or its number ${id} twice`, 'move the state directory away and apply the groups again');
      }
      const group = this.#add(id, name);
      const error = await group.resume(state);
      this.#reclaim(group);
      if (error !== undefined) failed.push({ group: name, error });
    }
    this.#hosts?.follow();
    return failed;
  }

  /** Rejects with EdgeError when the journal or the data plane failed. */
  submit(name: string, command: Command): Promise<Answer> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const known = this.#groups.get(name);
    if (command.kind === 'apply' && command.spec.group !== name) {
      return denied('bad_request', `the file is of group ${command.spec.group}, not of ${name}`, known?.state);
    }
    const busy = known?.busy;
    if (busy !== undefined) return Promise.resolve(busy); // before the ledger is asked
    if (this.#hosts?.isTheirs(known?.state, command) === true) return this.#hosts.submit(name, command);
    const group = known ?? (command.kind === 'apply' ? this.#create(name) : undefined);
    if (group === undefined) {
      return command.kind === 'apply' ? denied('bad_request', `this daemon has its ${GROUPS_MAX} groups: delete one first`, undefined)
        : denied('no_such_group', `there is no group ${name}: apply its file first`, undefined);
    }
    return group.submit(command);
  }

  get(name: string): GroupState | undefined {
    return this.#groups.get(name)?.state;
  }
  list(): readonly GroupState[] {
    return [...this.#groups.values()].flatMap(({ state }) => (state === undefined ? [] : [state]));
  }
  /** How far each host is, of a group across hosts. */
  progress(name: string): readonly HostProgress[] | undefined {
    return this.#groups.get(name)?.progress;
  }
  idOf(name: string): GroupId | undefined {
    return this.#groups.get(name)?.id;
  }
  /** Devices and nics of a group that is in place. */
  attached(name: string): AttachResult | undefined {
    return this.#groups.get(name)?.attached;
  }
  /** Groups that the ledger has in another state, and that could not follow, one sentence each. */
  behind(): readonly string[] {
    return [...this.#groups.values()].flatMap(({ name, behind }) =>
      (behind === undefined ? [] : [`group ${name} is not as its ledger says, its members here may be unprotected: ${behind.message}; ${behind.fix}`]));
  }
  /** What is not in place, one sentence each. */
  missing(): readonly string[] {
    return [...this.#groups.values()].flatMap(({ name, owes }) => (owes === undefined ? [] : [`group ${name}: ${owes.message}`]));
  }

  /** The gate's report: the hold pair of a group is gone. Its ring is opened again on the next one. */
  holdLost(id: GroupId): void {
    this.#byId.get(id)?.holdLost();
  }

  onEvent(listener: (event: ControlEvent) => void): () => void {
    this.#eventListeners.add(listener);
    return () => this.#eventListeners.delete(listener);
  }
  onFatal(listener: (reason: Error) => void): () => void {
    this.#fatalListeners.add(listener);
    return () => this.#fatalListeners.delete(listener);
  }

  /** Everybody who waits is answered; protection stays in the kernel. */
  async close(): Promise<void> {
    this.#closed ??= new EdgeError('plane_down', 'the daemon is ending', 'ask again when it is back');
    const reason = this.#closed;
    await Promise.all([...this.#groups.values()].map((group) => group.close(reason)));
  }

  #create(name: string): Group | undefined {
    for (let id = 0; id < GROUPS_MAX; id += 1) {
      if (!this.#byId.has(id)) return this.#add(id, name);
    }
    return undefined;
  }

  #add(id: GroupId, name: string): Group {
    const group: Group = new Group(id, name, this.#options, {
      emit: (event, generation) => {
        this.#emit({ group: name, generation, event });
      },
      trouble: (error) => {
        this.#options.trouble(name, error);
      },
      claim: (command) => this.#claim(group, command),
      changed: () => {
        this.#reclaim(group);
      },
      idle: () => {
        this.#maybeForget(group);
      },
      fault: (fault) => {
        this.#fatal(fault);
      },
      later: this.#options.later ?? afterMs,
    });
    this.#groups.set(name, group);
    this.#byId.set(id, group);
    return group;
  }

  /** A group that was deleted, or whose creation was refused, gives its number back. */
  #maybeForget(group: Group): void {
    if (group.state !== undefined || !group.idle || this.#groups.get(group.name) !== group) return;
    this.#groups.delete(group.name);
    this.#byId.delete(group.id);
  }

  /**
   * A port names one nic of one group (D1); those a command names are taken until it is answered.
   * Whether a MAC is free depends on bridge and VLAN, so the gate decides that when it attaches.
   */
  #claim(group: Group, command: Command): string | undefined {
    const claimed = this.#claimed(group.name, command);
    if (claimed !== undefined) return claimed;
    for (const { port } of this.#portsOf(command)) {
      this.#take(port, group.name);
      this.#claimedFor.delete(group.name);
    }
    return undefined;
  }

  #claimed(name: string, command: Command): string | undefined {
    for (const { port } of this.#portsOf(command)) {
      const owner = this.#claims.get(port);
      if (owner !== undefined && owner !== name) return `port ${port} belongs to group ${owner}: take it out there or use another`;
    }
    return undefined;
  }

  /** Of this host. */
  #portsOf(command: Command): readonly NicSpec[] {
    const self = this.#options.ledger?.self;
    if (command.kind === 'apply') return command.spec.members.flatMap(({ host, nics }) => (host === undefined || host === self ? nics : []));
    return command.kind === 'join' ? command.member.nics : [];
  }

  #reclaim(group: Group): void {
    const spec = group.state?.spec;
    if (spec !== undefined && spec === this.#claimedFor.get(group.name)) return;
    if (spec === undefined) this.#claimedFor.delete(group.name);
    else this.#claimedFor.set(group.name, spec);
    for (const port of this.#claimedBy.get(group.name) ?? []) {
      if (this.#claims.get(port) === group.name) this.#claims.delete(port);
    }
    this.#claimedBy.delete(group.name);
    for (const { nics } of group.state === undefined ? [] : localOf(group.state)) {
      for (const { port } of nics) this.#take(port, group.name);
    }
  }
  #take(port: string, group: string): void {
    const before = this.#claims.get(port);
    if (before !== undefined && before !== group) this.#claimedFor.delete(before); // its next command takes it back
    this.#claims.set(port, group);
    const ports = this.#claimedBy.get(group) ?? new Set();
    this.#claimedBy.set(group, ports.add(port));
  }

  #fact(fact: PlaneFact): void {
    if (fact.kind === 'dead') {
      this.#fatal(new EdgeError('plane_down', `the hold loop ended: ${fact.reason}`, 'restart the daemon; frames stay held'));
      return;
    }
    const group = this.#byId.get(fact.id);
    if (fact.kind === 'no-lanes') {
      this.#options.trouble(group?.name ?? '', new EdgeError('plane_down', `lanes can't be used, held frames wait in the ring: ${fact.reason}`, 'mend that, or set lanes: off; the ring is slower for large frames, not otherwise'));
      return;
    }
    if (group?.state === undefined) return;
    if (fact.kind === 'released') {
      group.tell({ kind: 'released', colour: fact.colour });
      return;
    }
    this.#emit({ group: group.name, generation: group.state.generation, event: planeEvent(fact) });
  }

  #emit(event: ControlEvent): void {
    for (const listener of this.#eventListeners) listener(event);
  }

  #fatal(fault: unknown): void {
    if (this.#closed !== undefined) return;
    this.#closed = new EdgeError('plane_down', 'the daemon is ending after a fault', 'ask again when it is back', fault);
    void this.close();
    const reason = fault instanceof Error ? fault : asEdgeError(fault);
    for (const listener of this.#fatalListeners) listener(reason);
  }
}

function planeEvent(fact: Exclude<PlaneFact, { kind: 'released' | 'dead' | 'no-lanes' }>): PlaneEvent {
  switch (fact.kind) {
    case 'output-pending': return { type: fact.kind, epoch: fact.epoch };
    case 'high-water': return { type: fact.kind, occupancy: Math.round(fact.occupancy * 1000) / 1000, heldBytes: fact.heldBytes };
    case 'overflow': return { type: fact.kind, frames: fact.frames };
  }
}

