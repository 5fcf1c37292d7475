/**
 * Carries out plans in the kernel, and shows what is in place there: asked each time, never
 * remembered, so what another tool removed is seen.
 *
 * A step that fails does not stop the others: what fails is collected, with the device it is about,
 * and the caller judges whose it is. One step depends on those before it: a device is vetted (let
 * through a guarded bridge) only if nothing about it or its bridge failed.
 */
import { DEVICES_MAX } from './abi.ts';
import { keyBytes, keyText } from './keys.ts';
import type { Kernel } from './kernel.ts';
import { FENCED, TABLES } from './plan.ts';
import type { Action, AttachedHook, Picture, TableName } from './plan.ts';
import type { Ledger } from './stats.ts';
import { othersTurn } from './turns.ts';
import type { Turns } from './turns.ts';

export interface Failure {
  readonly ifindex: number;
  readonly error: unknown;
}
type Handlers = { readonly [K in Action['do']]: (action: Extract<Action, { do: K }>) => void | Promise<void> };

const STEPS_MAX = DEVICES_MAX * 8;

export class Performer {
  readonly #kernel: Kernel;
  readonly #ledger: Ledger;
  readonly #adopting: boolean;
  /** Static forwarding entries we need; false = the operator's, which stays when we go. */
  readonly #forwarding = new Map<string, boolean>();

  constructor(kernel: Kernel, ledger: Ledger, adopting: boolean) {
    this.#kernel = kernel;
    this.#ledger = ledger;
    this.#adopting = adopting;
  }

  picture(): Picture {
    const look = this.#look();
    for (;;) {
      const { done, value } = look.next();
      if (done === true) return value;
    }
  }
  /** The same piece by piece. Nobody but who has the gate's turn changes what it looks at, other tools apart. */
  async pictureInTurns(turns: Turns): Promise<Picture> {
    const look = this.#look();
    for (;;) {
      const { done, value } = look.next();
      if (done === true) return value;
      await turns.give();
    }
  }
  /** Stops where it may pause. */
  *#look(): Generator<undefined, Picture, undefined> {
    const counted = this.#kernel.counted();
    yield;
    const hooks: AttachedHook[] = [];
    for (const hook of this.#kernel.hooks(counted)) {
      hooks.push(hook);
      yield;
    }
    const tables: Partial<Record<TableName, Map<string, number>>> = {};
    for (const name of TABLES) {
      tables[name] = this.table(name);
      yield;
    }
    return { hooks, tables: tables as Picture['tables'], counted: new Set(counted), forwarding: new Set(this.#forwarding.keys()) };
  }
  table(name: TableName): Map<string, number> {
    return new Map(this.#kernel.entries(name).map(({ key, value }) => [keyText(name, key), value]));
  }

  /**
   * No device is this nic's any more: it is looked for by its port's name again. What speaks there
   * is of an old generation (I7): first nothing of it is let through the bridge, then it is let go.
   */
  fence(nic: number): Promise<readonly Failure[]> {
    const keys = [...this.table('ports')].filter(([, owner]) => owner === nic).map(([key]) => key);
    return this.perform([
      ...keys.map((key): Action => ({ do: 'put', table: 'devices', key, value: FENCED })),
      ...keys.map((key): Action => ({ do: 'remove', table: 'ports', key })),
    ]);
  }

  async perform(actions: readonly Action[]): Promise<Failure[]> {
    if (actions.length > STEPS_MAX) throw new Error(`a plan of ${actions.length} steps`);
    const failures: Failure[] = [];
    const failed = new Set<number>();
    for (const action of actions) {
      if (isVetting(action) && (failed.has(action.value) || failed.has(Number(action.key)))) continue;
      try {
        await perform(this.#handlers, action);
      } catch (error) {
        failures.push({ ifindex: deviceOf(action), error });
        failed.add(deviceOf(action));
      }
    }
    return failures;
  }

  readonly #handlers: Handlers = {
    count: ({ ifindex }) => this.#kernel.count(ifindex),
    uncount: ({ ifindex }) => {
      this.#ledger.retire(ifindex);
      this.#kernel.uncount(ifindex);
    },
    put: ({ table, key, value }) => this.#kernel.put(table, keyBytes(table, key), value),
    remove: ({ table, key }) => this.#kernel.remove(table, keyBytes(table, key)),
    hook: ({ hook }) => {
      this.#kernel.hook(hook);
      return othersTurn(); // it takes some 10 ms (the kernel waits for its readers), and the first group of a bridge has two for each port
    },
    unhook: ({ hook }) => {
      this.#kernel.unhook(hook);
      return othersTurn();
    },
    forward: ({ entry }) => {
      // After a restart ours can't be told from the operator's: the last daemon made them.
      this.#forwarding.set(entry, this.#kernel.forward(...forwardingParts(entry)) || this.#adopting);
    },
    unforward: ({ entry }) => {
      if (this.#forwarding.get(entry) === true) this.#kernel.unforward(...forwardingParts(entry));
      this.#forwarding.delete(entry);
    },
    wait: () => this.#kernel.passed(),
  };
}

const isVetting = (action: Action): action is Extract<Action, { do: 'put' }> => action.do === 'put' && action.table === 'devices';

/** The device a step is about; of `macs` and `guarded` the bridge, of a wait none. */
function deviceOf(action: Action): number {
  switch (action.do) {
    case 'count': case 'uncount': return action.ifindex;
    case 'hook': case 'unhook': return action.hook.ifindex;
    case 'put': case 'remove': return Number(action.key.split(' ')[0]);
    case 'forward': case 'unforward': return forwardingParts(action.entry)[0];
    case 'wait': return 0;
  }
}
function forwardingParts(entry: string): [number, string] {
  const [ifindex = '', mac = ''] = entry.split(' ');
  return [Number(ifindex), mac];
}
function perform<K extends Action['do']>(handlers: Handlers, action: Extract<Action, { do: K }>): void | Promise<void> {
  return handlers[action.do](action);
}
