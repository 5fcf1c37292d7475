/**
 * One life of the daemon over the model: the real Control on ports that may fail, be slow, or be
 * the last thing the process did. A mutation breaks one of the orders that the executor promises.
 */
import { Control } from '../../proxy/control/control.ts';
import { colour as asColour } from '../../proxy/core/types.ts';
import type { Colour, GroupSpec } from '../../proxy/core/types.ts';
import { EdgeError } from '../../proxy/ports.ts';
import type { AttachResult, Gate, GateMember, HoldCounters, HoldPlane, Journal, JournalRecord, PlaneFact } from '../../proxy/ports.ts';
import type { Kernel } from './kernel.ts';
import { Ring } from './kernel.ts';
import type { Random } from './random.ts';

export type Mutation = 'none' | 'release-before-persist' | 'commit-off-by-one' | 'base-not-raised' | 'receiver-before-store' | 'restore-late' | 'ready-at-once' | 'persist-forgotten' | 'port-left-open' | 'moved-late' | 'closed-forgotten';

/** The process ended here. */
class Killed extends Error {
  override readonly name = 'Killed';
}
const NICS = ['', 'a', 'b', 'c', 'd'];
const counters = (): HoldCounters => ({
  heldFrames: 0, heldBytes: 0, oldestMs: 0, occupancy: 0, arrived: 0, arrivedBytes: 0, releasedFrames: 0, releasedBytes: 0, discardedFrames: 0,
  overflowFrames: 0, refusedFrames: 0, earlyFrames: 0, lateRecorded: 0, redelivered: 0, holdHistogram: [], holdSumMs: 0, wireHistogram: [], wireSumMs: 0,
});

export class Daemon {
  readonly control: Control;
  readonly #kernel: Kernel;
  readonly #random: Random;
  readonly #disk: Map<string, JournalRecord>;
  readonly #mutation: Mutation;
  /** Ports' calls and plane commands that have not happened yet. */
  readonly slow: (() => void)[] = [];
  readonly orders: (() => void)[] = [];
  readonly timers: (() => void)[] = [];
  dead = false;
  /** Port calls until the process is killed. */
  killIn = Infinity;
  failing = 0;
  /** By this life of the gate. */
  #attached = false;
  #facts: ((fact: PlaneFact) => void) | undefined;
  #shift = 0;

  constructor(kernel: Kernel, random: Random, disk: Map<string, JournalRecord>, mutation: Mutation) {
    this.#kernel = kernel;
    this.#random = random;
    this.#disk = disk;
    this.#mutation = mutation;
    this.control = new Control({
      journal: this.#journal(),
      gate: this.#gate(),
      plane: this.#plane(),
      announcer: { announce: () => this.#later(() => undefined) },
      trouble: () => undefined,
      later: (run) => {
        this.timers.push(run);
        return () => {
          const at = this.timers.indexOf(run);
          if (at >= 0) this.timers.splice(at, 1);
        };
      },
    });
  }

  /** The gate knows of its pair from when it has attached the group; of what befell an earlier life's it hears nothing. */
  get attached(): boolean {
    return this.#attached;
  }

  report(colour: Colour): void {
    this.#facts?.({ kind: 'released', id: 0, colour: asColour(colour + this.#shift) });
  }

  /** Every call of a port goes through here: it may be where the process ends. */
  #alive(): void {
    if (this.killIn-- <= 0) this.dead = true;
    if (this.dead) throw new Killed('killed');
  }
  #mayFail(what: 'journal_failed' | 'plane_down'): void {
    if (this.#random.chance(this.failing)) throw new EdgeError(what, `${what} by chance`, 'try again');
  }
  #later<T>(run: () => T): Promise<T> {
    this.#alive();
    return new Promise((resolve, reject) => {
      this.slow.push(() => {
        try {
          resolve(run());
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
    });
  }
  /** A plane's command that is waited for; it keeps its place among the others. */
  #inOrder(run: () => void): Promise<void> {
    this.#alive();
    return new Promise((resolve, reject) => {
      this.orders.push(() => {
        try {
          run();
          resolve();
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
    });
  }
  #order(run: (ring: Ring) => void): void {
    this.#alive();
    this.orders.push(() => {
      if (this.#kernel.ring !== undefined) run(this.#kernel.ring);
    });
  }
  readonly #seen = (c: Colour): Colour => asColour(c - this.#shift);

  #journal(): Journal {
    return {
      writable: true,
      load: () => Promise.resolve([...this.#disk.values()]),
      append: (record) => {
        this.#alive();
        const { state } = record;
        const rose = state.committed > (this.#disk.get('g')?.state.committed ?? 0) && state.phase === 'protected';
        if (rose && this.#mutation === 'release-before-persist') this.#releaseTo(asColour(state.colourBase + state.committed));
        if (rose && this.#mutation === 'persist-forgotten') return Promise.resolve();
        return this.#later(() => {
          this.#mayFail('journal_failed');
          this.#disk.set('g', record);
        });
      },
      forget: (group) => this.#later(() => void this.#disk.delete(group)),
      close: () => Promise.resolve(),
    };
  }

  #releaseTo(c: Colour): void {
    const seen = this.#seen(this.#mutation === 'commit-off-by-one' ? asColour(c + 1) : c);
    this.#kernel.cells.commit = seen;
    this.#order((ring) => {
      ring.release(seen);
    });
  }

  #setMembers(spec: GroupSpec, members: readonly GateMember[]): AttachResult {
    const { cells } = this.#kernel;
    const before = new Map(cells.members);
    cells.members.clear();
    const portOf = new Map(spec.members.map(({ name, nics }) => [name, nics[0]?.port ?? '']));
    for (const { name, colour, ready } of members) {
      const [old, port] = [before.get(name), portOf.get(name) ?? ''];
      const member = { port: old?.port ?? port, colour: this.#seen(colour), ready: ready || this.#mutation === 'ready-at-once', drain: old?.drain ?? false };
      cells.members.set(name, member);
      const move = (): void => this.#move(member, port);
      if (this.#mutation === 'moved-late') this.slow.push(move);
      else move();
    }
    const nics = spec.members.map(({ name }) => ({ nic: NICS.indexOf(name), member: name, port: portOf.get(name) ?? '', ifindex: NICS.indexOf(name) }));
    return { id: 0, holdDevice: 'slh0', ringDevice: 'slr0', nics };
  }

  /** What it leaves is closed, what it comes to is open. */
  #move(member: { port: string }, port: string): void {
    const { closed } = this.#kernel;
    if (member.port !== port && this.#mutation !== 'port-left-open') closed.add(member.port);
    closed.delete(port);
    member.port = port;
  }

  #gate(): Gate {
    const { cells } = this.#kernel;
    return {
      attach: (_id, spec, colour, members) =>
        this.#later(() => {
          this.#mayFail('plane_down');
          const fresh = !cells.attached || !this.#attached;
          this.#attached = true;
          if (fresh && this.#mutation === 'closed-forgotten') this.#kernel.closed.clear();
          this.#kernel.providePair();
          cells.attached = true;
          cells.colour = this.#seen(colour);
          const result = this.#setMembers(spec, members);
          if (fresh) cells.drainAll = false;
          if (fresh) for (const member of cells.members.values()) member.drain = false;
          return result;
        }),
      reattach: (_id, spec, members) =>
        this.#later(() => {
          this.#mayFail('plane_down');
          return this.#setMembers(spec, members);
        }),
      detach: () =>
        this.#later(() => {
          this.#mayFail('plane_down');
          cells.attached = false;
          for (const { frame } of this.#kernel.wire.splice(0)) this.#kernel.oracle.lost(frame); // the pair is gone
          cells.members.clear();
          cells.drainAll = false;
        }),
      setColour: (_id, colour) => {
        this.#alive();
        cells.colour = this.#seen(colour);
      },
      setMemberColour: (_id, name, colour) => {
        this.#alive();
        const member = cells.members.get(name);
        if (member !== undefined) member.colour = this.#seen(colour);
      },
      setCommit: (_id, colour) => {
        this.#alive();
        cells.commit = this.#seen(this.#mutation === 'commit-off-by-one' ? asColour(colour + 1) : colour);
      },
      setReady: (_id, name) => {
        this.#alive();
        const member = cells.members.get(name);
        if (member !== undefined) member.ready = true;
      },
      setDraining: (_id, name) => {
        this.#alive();
        if (name === undefined) cells.drainAll = true;
        const member = name === undefined ? undefined : cells.members.get(name);
        if (member !== undefined) member.drain = true;
      },
    };
  }

  #plane(): HoldPlane {
    const names = (nics: readonly number[]): string[] => nics.map((nic) => NICS[nic] ?? '');
    return {
      open: (_id, { colour }) =>
        this.#inOrder(() => {
          this.#mayFail('plane_down');
          this.#kernel.ring?.end();
          this.#kernel.ring = new Ring(this.#kernel, this.#seen(colour));
        }),
      close: () =>
        this.#inOrder(() => {
          this.#kernel.ring?.end();
          this.#kernel.ring = undefined;
        }),
      advance: (_id, colour) => {
        this.#alive();
        if (this.#mutation === 'receiver-before-store') for (const [, member] of this.#kernel.cells.members) member.colour = this.#seen(asColour(colour + 1));
      },
      release: (_id, colour) => {
        this.#releaseTo(colour);
      },
      restore: (_id, restored, next) => {
        if (this.#mutation === 'base-not-raised') {
          this.#shift += next - restored - 1;
          this.#kernel.cells.colour = this.#seen(next);
        }
        const to = this.#seen(this.#mutation === 'base-not-raised' ? asColour(restored + this.#shift) : this.#mutation === 'restore-late' ? asColour(restored + 1) : restored);
        const on = this.#seen(next);
        return new Promise((resolve) => {
          this.#order((ring) => {
            ring.restore(to, on);
            resolve();
          });
        });
      },
      receiver: (_id, nics, colour) => {
        const seen = this.#seen(colour);
        this.#order((ring) => {
          ring.receiver(names(nics), seen);
        });
      },
      drain: (_id, nics, held) =>
        new Promise((resolve) => {
          this.#order((ring) => {
            ring.drain(nics === undefined ? undefined : names(nics), held === 'release', resolve);
          });
        }),
      held: () => Promise.resolve([]),
      dump: () => ({ [Symbol.asyncIterator]: () => ({ next: () => Promise.resolve({ done: true, value: undefined }) }) }),
      counters,
      onFact: (listener) => {
        this.#facts = listener;
      },
      stop: () => Promise.resolve(),
    };
  }
}
