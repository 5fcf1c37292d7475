/**
 * What is the group's, across hosts: through the ledger first, then to this host's own machine.
 *
 *    apply, protect, unprotect, delete ─► read ─► decide ─► swap ─┬─ moved meanwhile: read again
 *    takeover ───────────────────────────────┘                    └─ done ─► this host hears of it ─► answer
 *                                                                              └ takeover: and opens it
 *    view of the watch ─► the group's mailbox (made, where the head names this host)
 *
 * An answer says that the ledger has it and that this host has done its part; the others hear of it
 * by their watch. A swap whose outcome is not known is an error to its asker, who may ask again: what
 * is so already is ignored.
 */
import { decideHead, hostsOf, isHeadCommand } from '../core/hosts.ts';
import type { HeadCommand } from '../core/hosts.ts';
import { isAcross } from '../core/spec.ts';
import type { Command, GroupState, LedgerView } from '../core/types.ts';
import { deny } from '../core/watermarks.ts';
import type { Ledger } from '../ports.ts';
import type { Answer, Group } from './group.ts';

/** Swaps of one group that others make at the same time; after so many the asker is told to ask again. */
const TRIES_MAX = 8;

export interface GroupsOfControl {
  find(name: string): Group | undefined;
  /** undefined = the daemon has no room for one more. */
  make(name: string): Group | undefined;
  /** A sentence where a port of this host is another group's. */
  claimed(group: string, command: Command): string | undefined;
}

export class Hosts {
  readonly #ledger: Ledger;
  readonly #groups: GroupsOfControl;

  readonly #isolated: () => string | undefined;
  readonly #nextLife: () => string;

  /** `isolated`: a sentence while this host may take nothing over. `nextLife`: a name that no generation had before. */
  constructor(ledger: Ledger, groups: GroupsOfControl, { isolated, nextLife }: { isolated: () => string | undefined; nextLife: () => string }) {
    this.#ledger = ledger;
    this.#groups = groups;
    this.#isolated = isolated;
    this.#nextLife = nextLife;
  }

  /** From now on every view finds its group. */
  follow(): void {
    this.#ledger.onView((name, view) => {
      this.#group(name, view)?.see({ kind: 'ledger', self: this.#ledger.self, view });
    });
  }

  /** Is this the ledger's to decide, and not this host's alone? */
  isTheirs(state: GroupState | undefined, command: Command): command is HeadCommand {
    if (!isHeadCommand(command)) return false;
    if (command.kind === 'apply' && isAcross(command.spec)) return true;
    if (state?.across === undefined) return false;
    return !(command.kind === 'unprotect' && state.phase === 'fenced'); // what it still has is its own to give up
  }

  /** Throws EdgeError. */
  async submit(name: string, command: HeadCommand): Promise<Answer> {
    const refused = this.#refuse(name, command);
    if (refused !== undefined) return { reply: deny('bad_request', refused), state: this.#groups.find(name)?.state };
    const isolated = command.kind === 'takeover' ? this.#isolated() : undefined;
    if (isolated !== undefined) return { reply: deny('isolated', isolated), state: this.#groups.find(name)?.state };
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      const view = await this.#ledger.read(name);
      const { reply, swap } = decideHead(view, command, { life: this.#nextLife(), known: this.#groups.find(name)?.state });
      if (reply.outcome === 'denied') return { reply, state: this.#groups.find(name)?.state };
      if (swap !== undefined && !(await this.#ledger.swap(name, swap))) continue;
      return this.#heard(name, command, reply);
    }
    return { reply: deny('busy', `group ${name} is being changed by other hosts: ask again`), state: this.#groups.find(name)?.state };
  }

  #refuse(name: string, command: HeadCommand): string | undefined {
    if (command.kind !== 'apply') return undefined;
    const { self } = this.#ledger;
    if (!hostsOf(command.spec).includes(self)) return `no member lives on this host, which is ${self}: apply the file on one of ${hostsOf(command.spec).join(', ')}`;
    const state = this.#groups.find(name)?.state;
    if (state !== undefined && state.across === undefined) return `${name} is a group of this host alone: delete it first`;
    return this.#groups.claimed(name, command);
  }

  async #heard(name: string, command: HeadCommand, reply: Answer['reply']): Promise<Answer> {
    const view = await this.#ledger.read(name);
    const group = this.#group(name, view);
    if (group === undefined) return { reply, state: undefined };
    const state = await group.take({ kind: 'ledger', self: this.#ledger.self, view });
    const isHere = view.head !== undefined && hostsOf(view.head.spec).includes(this.#ledger.self);
    // Somebody else's takeover, said again by who has no part in it, must not read as its own (I7).
    return command.kind === 'takeover' && (isHere || reply.outcome === 'ignored') ? group.submit(command) : { reply, state };
  }

  #group(name: string, { head }: LedgerView): Group | undefined {
    const known = this.#groups.find(name);
    if (known !== undefined || head === undefined || head.phase === 'deleted' || !hostsOf(head.spec).includes(this.#ledger.self)) return known;
    return this.#groups.make(name);
  }
}
