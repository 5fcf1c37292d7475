import { Control } from '../../proxy/control/control.ts';
import type { ControlEvent } from '../../proxy/control/control.ts';
import { Executor } from '../../proxy/control/executor.ts';
import type { Command, GroupSpec, GroupState, LedgerView } from '../../proxy/core/types.ts';
import { EdgeError } from '../../proxy/ports.ts';
import type { AttachResult, Gate, HoldCounters, HoldPlane, Journal, JournalRecord, PlaneFact } from '../../proxy/ports.ts';

/** Ports that write down what they are asked, and fail where told. */
export class Ports {
  readonly calls: string[] = [];
  readonly disk = new Map<string, JournalRecord>();
  readonly events: ControlEvent[] = [];
  readonly timers: (() => void)[] = [];
  failing: string | undefined;
  fact: (fact: PlaneFact) => void = () => undefined;
  /** Until it is called, appends don't end. */
  hold: Promise<void> | undefined;
  /** The same for rings that are opened. */
  holdOpen: Promise<void> | undefined;
  /** The same for what is let out. */
  holdDrain: Promise<void> | undefined;

  /** Whether the last announcement would be said again now. */
  isStill: () => boolean = () => false;

  /** The ledger's watch: what it says of a group across hosts, of which this host is h1. */
  view: (group: string, view: LedgerView) => void = () => undefined;
  readonly control = new Control({
    ledger: {
      self: 'h1', read: () => Promise.reject(new Error('not asked')), swap: () => Promise.resolve(false), publish: () => undefined,
      onView: (listener) => (this.view = listener),
    },
    journal: this.#journal(),
    gate: this.#gate(),
    plane: this.#plane(),
    announcer: {
      announce: (_id, _spec, _nics, isStill) => {
        this.isStill = isStill;
        return this.#call('announce');
      },
    },
    trouble: () => undefined,
    later: (run) => {
      this.timers.push(run);
      return () => undefined;
    },
  });

  constructor() {
    this.control.onEvent((event) => {
      this.events.push(event);
      this.calls.push(`emit ${event.event.type}`);
    });
  }

  #call(name: string): Promise<void> {
    this.calls.push(name);
    if (this.failing === name.split(' ')[0]) return Promise.reject(new EdgeError(name.startsWith('append') ? 'journal_failed' : 'plane_down', `${name} failed`, 'mend it'));
    return Promise.resolve();
  }
  #journal(): Journal {
    return {
      writable: true,
      load: () => Promise.resolve([]),
      append: async (record, durable) => {
        await this.hold;
        await this.#call(`append${durable ? ' synced' : ''}`);
        this.disk.set(record.state.spec.group, record);
      },
      forget: (group) => this.#call(`forget ${group}`),
      close: () => Promise.resolve(),
    };
  }
  #attached(id: number, spec: GroupSpec): AttachResult {
    const nics = spec.members.map(({ name }, i) => ({ nic: i + 1, member: name, port: `tap${name}`, ifindex: i + 1 }));
    return { id, holdDevice: `slh${id}`, ringDevice: `slr${id}`, nics };
  }
  #gate(): Gate {
    const note = (name: string) => void this.calls.push(name);
    return {
      attach: (id, spec, c) => this.#call(`attach ${c}`).then(() => this.#attached(id, spec)),
      reattach: (id, spec) => this.#call('reattach').then(() => this.#attached(id, spec)),
      detach: () => this.#call('detach'),
      setColour: (_id, c) => { note(`colour ${c}`); },
      setMemberColour: (_id, member, c) => { note(`member ${member} ${c}`); },
      setCommit: (_id, c) => { note(`commit ${c}`); },
      setReady: (_id, member) => { note(`ready ${member}`); },
      setDraining: (_id, member) => { note(`draining ${member ?? 'all'}`); },
    };
  }
  #plane(): HoldPlane {
    const note = (name: string) => void this.calls.push(name);
    const none: HoldCounters = {
      heldFrames: 0, heldBytes: 0, oldestMs: 0, occupancy: 0, arrived: 0, arrivedBytes: 0, releasedFrames: 0, releasedBytes: 0, discardedFrames: 0, overflowFrames: 0,
      refusedFrames: 0, earlyFrames: 0, lateRecorded: 0, redelivered: 0, holdHistogram: [], holdSumMs: 0, wireHistogram: [], wireSumMs: 0,
    };
    return {
      open: () => this.#call('open').then(() => this.holdOpen),
      close: () => this.#call('close'),
      advance: (_id, c) => { note(`advance ${c}`); },
      release: (_id, c) => { note(`release ${c}`); },
      restore: (_id, restored, next) => this.#call(`restore ${restored} ${next}`),
      receiver: (_id, nics, c) => { note(`receiver ${nics.join('+')} ${c}`); },
      drain: (_id, nics, held) => this.#call(`drain ${nics?.join('+') ?? 'all'} ${held}`).then(() => this.holdDrain).then(() => 0),
      held: () => Promise.resolve([]),
      dump: () => ({ [Symbol.asyncIterator]: () => ({ next: () => Promise.resolve({ done: true, value: undefined }) }) }),
      counters: () => none,
      onFact: (listener) => (this.fact = listener),
      stop: () => Promise.resolve(),
    };
  }

  /** An executor of its own on the same ports. */
  executor(): { executor: Executor; calls: string[] } {
    const world = { journal: this.#journal(), gate: this.#gate(), plane: this.#plane(), announcer: { announce: () => Promise.resolve() } };
    return { executor: new Executor(0, 'web', world, { emit: () => undefined, drained: () => undefined, trouble: () => undefined }), calls: this.calls };
  }

  async ask(command: Command, group = 'web'): Promise<string> {
    this.calls.length = 0;
    const { reply } = await this.control.submit(group, command);
    return reply.outcome === 'denied' ? reply.denial.code : reply.outcome;
  }
  state(group = 'web'): GroupState {
    const state = this.control.get(group);
    if (state === undefined) throw new Error('no such group');
    return state;
  }
}
