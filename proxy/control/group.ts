/**
 * One group of the daemon: its state in memory, its mailbox, its executor.
 *
 *    command ─► mailbox ─► settle what is owed ─► step ─► perform ─► state taken ─► answer
 *    fact ────►    │                                        └ fails ─► answer 503, remind later
 *
 * The state in memory is what the journal holds (or one released watermark ahead of it, which a
 * restart takes from `committed`). A fact whose effects fail is kept and tried again: it is never
 * lost, and nobody waits for it.
 */
import { colourDiff } from '../core/types.ts';
import type { Command, CoreEvent, Fact, GroupState, HostProgress, Input, Reply } from '../core/types.ts';
import { progressOf } from '../core/hosts.ts';
import { resume } from '../core/resume.ts';
import { decide, step } from '../core/step.ts';
import { ACCEPTED, deny } from '../core/watermarks.ts';
import { EdgeError } from '../ports.ts';
import type { AttachResult, GroupId } from '../ports.ts';
import { Executor } from './executor.ts';
import type { World } from './executor.ts';
import { Mailbox } from './mailbox.ts';
import { after } from './soon.ts';
import type { Soon } from './soon.ts';

/** Commands that may wait for one group; one more is answered `busy`. */
export const COMMANDS_MAX = 256;
const REMIND_MS = 250;

/** What became of a command; `state` is undefined when there is no such group (any more). */
export interface Answer {
  readonly reply: Reply;
  readonly state: GroupState | undefined;
}
/** holdLost: the ring's device is gone. */
type Note = Fact | Settle | { readonly kind: 'holdLost' };
interface Settle {
  readonly kind: 'settle';
}

export type View = Extract<Fact, { kind: 'ledger' }>;

export interface GroupHooks {
  emit(event: CoreEvent, generation: number): void;
  trouble(error: EdgeError): void;
  /** A sentence that denies the command because a port is another group's; undefined = none. */
  claim(command: Command): string | undefined;
  /** The state may have changed. */
  changed(): void;
  idle(): void;
  fault(fault: unknown): void;
  /** Runs `remind` once, later; returns what cancels it. */
  later(remind: () => void, ms: number): () => void;
}

export class Group {
  readonly name: string;
  readonly #executor: Executor;
  readonly #mailbox: Mailbox<Command | View | Settle, Answer, Note>;
  readonly #hooks: GroupHooks;
  readonly #kept = new Map<string, Note>();
  #state: GroupState | undefined;
  #cancelReminder: (() => void) | undefined;
  /** The newest of the ledger. */
  #view: View | undefined;
  /** The newest that has a head: said again after what may have kept it from being taken up. */
  #headed: View | undefined;
  #behind: EdgeError | undefined;

  constructor(id: GroupId, name: string, world: World, hooks: GroupHooks) {
    this.name = name;
    this.#hooks = hooks;
    this.#executor = new Executor(id, name, world, {
      emit: (event, state) => {
        hooks.emit(event, state?.generation ?? 0);
      },
      drained: () => {
        this.tell({ kind: 'drained' });
      },
      trouble: (error) => {
        hooks.trouble(error);
      },
    });
    this.#mailbox = new Mailbox<Command | View | Settle, Answer, Note>({
      commandsMax: COMMANDS_MAX,
      serve: (command) => this.#serve(command),
      note: (note) => this.#heed(note),
      merge: newer,
      onIdle: () => {
        hooks.idle();
      },
      onFault: (fault) => {
        hooks.fault(fault);
      },
      onThrown: (error) => {
        if (!(error instanceof EdgeError)) hooks.fault(error);
      },
    });
  }

  get id(): GroupId {
    return this.#executor.id;
  }
  get state(): GroupState | undefined {
    return this.#state;
  }
  get attached(): AttachResult | undefined {
    return this.#executor.attached;
  }
  get owes(): EdgeError | undefined {
    return this.#executor.owes;
  }
  /** What keeps this host from taking up what the ledger says. */
  get behind(): EdgeError | undefined {
    return this.#behind;
  }
  get progress(): readonly HostProgress[] | undefined {
    const view = this.#state?.across === undefined ? undefined : this.#view?.view;
    return view?.head?.phase === 'protected' ? progressOf(view.head, view) : undefined;
  }
  /** Nothing is to be done, and nothing is to be tried again. */
  get idle(): boolean {
    return this.#mailbox.idle && this.#kept.size === 0;
  }

  submit(command: Command): Promise<Answer> {
    const { busy } = this;
    return busy === undefined ? this.#mailbox.send(command) : Promise.resolve(busy);
  }
  /** What a command is answered while as many wait as may. */
  get busy(): Answer | undefined {
    return this.#mailbox.isFull ? { reply: deny('busy', `${COMMANDS_MAX} commands of group ${this.name} wait already: wait for their answers`), state: this.#state } : undefined;
  }

  tell(fact: Fact): void {
    this.#mailbox.tell(fact);
  }

  /** A view of the ledger, from its watch. */
  see(view: View): void {
    this.#view = view;
    if (view.view.head === undefined) return; // somebody removed it: that takes nothing back
    this.#headed = view;
    if (!this.#isNothingNew(view)) this.#mailbox.tell(view);
  }
  /** As its step would find: two of three views of a group on three hosts bring an ack that commits nothing yet. */
  #isNothingNew(view: View): boolean {
    return this.idle && this.#behind === undefined && this.owes === undefined && decide(this.#state, view).outcome === 'ignored';
  }
  /** The same, waited for until nothing of it is left to do. */
  async take(view: View): Promise<GroupState | undefined> {
    this.see(view);
    for (;;) {
      if (this.busy !== undefined) throw new EdgeError('plane_down', `${COMMANDS_MAX} commands of group ${this.name} wait before what the ledger says now`, 'it is done when its turn comes: ask for the group\'s state');
      const { reply, state } = await this.#mailbox.send(view);
      if (reply.outcome !== 'accepted') return state;
    }
  }

  /** What is held is lost; nothing more is accepted until the ring is open again. */
  holdLost(): void {
    this.#mailbox.tell({ kind: 'holdLost' });
  }

  /**
   * After a restart of the daemon. What cannot be done now is owed, and returned. By the mailbox like
   * anything else: a pair that is lost meanwhile would be opened by two at a time, and what the first
   * ring had taken would go with it.
   */
  async resume(journalled: GroupState): Promise<EdgeError | undefined> {
    const { state, effects } = resume(journalled);
    this.#state = state;
    this.#executor.owe(effects, state, new EdgeError('plane_down', 'the daemon is starting', 'wait'));
    try {
      await this.#mailbox.send({ kind: 'settle' });
      return undefined;
    } catch (error) {
      if (!(error instanceof EdgeError)) throw error;
      this.#remind({ kind: 'settle' });
      return error;
    }
  }

  async close(reason: EdgeError): Promise<void> {
    this.#cancelReminder?.();
    await this.#mailbox.close(reason);
    this.#cancelReminder?.();
  }

  #serve(command: Command | View | Settle): Soon<Answer> {
    return after(this.#settle(), () => (command.kind === 'settle' ? { reply: ACCEPTED, state: this.#state } : this.#take(command)));
  }

  #take(command: Command | View): Soon<Answer> {
    const claimed = command.kind === 'ledger' ? undefined : this.#hooks.claim(command);
    if (claimed !== undefined) return { reply: deny('port_claimed', claimed), state: this.#state };
    const taken = step(this.#state, command);
    if (taken.reply.outcome !== 'accepted') return this.#answer(command, taken.reply);
    return after(this.#executor.perform(this.#state, taken), ({ state, error }) => {
      this.#state = state;
      if (error === undefined) return this.#answer(command, taken.reply);
      this.#hooks.changed();
      if (this.#executor.owes !== undefined) this.#remind({ kind: 'settle' });
      throw error;
    });
  }
  #answer(command: Command | View, reply: Reply): Answer {
    this.#hooks.changed();
    this.#again(command, reply);
    return { reply, state: this.#state };
  }

  /** What is owed is done, and a view that came while it was not is heard again. */
  #settle(): Soon<void> {
    if (this.owes === undefined) return;
    return this.#executor.settle().then(() => {
      if (this.#headed !== undefined) this.#mailbox.tell(this.#headed);
    });
  }
  /** A view may take two steps, and what it waited for may have come: end of a drain, of a fence. */
  #again({ kind }: Input, reply: Reply): void {
    const frees = kind === 'ledger' || kind === 'drained' || kind === 'unprotect' || kind === 'takeover';
    if (!frees || reply.outcome !== 'accepted' || this.#headed === undefined) return;
    if (this.#behind !== undefined || decide(this.#state, this.#headed).outcome !== 'ignored') this.#mailbox.tell(this.#headed);
  }

  #heed(note: Note): Soon<void> {
    const heard = (behind: EdgeError | undefined): void => {
      if (note.kind === 'ledger') this.#behind = behind;
    };
    const failed = (error: unknown): void => {
      if (!(error instanceof EdgeError)) throw error;
      heard(error);
      this.#remind(note.kind === 'holdLost' ? { kind: 'settle' } : note);
    };
    try {
      const done = this.#heedNow(note);
      return done instanceof Promise ? done.then(heard, failed) : heard(done);
    } catch (error) {
      return failed(error);
    }
  }

  /** What kept this host from taking the step; said once, and tried again. */
  #heedNow(note: Note): Soon<EdgeError | undefined> {
    if (note.kind === 'holdLost') this.#executor.reopen(this.#state);
    return after(this.#settle(), () => (note.kind === 'settle' || note.kind === 'holdLost' ? undefined : this.#follow(note)));
  }
  #follow(fact: Fact): Soon<EdgeError | undefined> {
    const taken = step(this.#state, fact);
    if (taken.reply.outcome !== 'accepted') return undefined;
    return after(this.#executor.perform(this.#state, taken), ({ state, error }) => {
      const advanced = state === taken.state;
      this.#state = state;
      this.#hooks.changed();
      if (error === undefined) {
        this.#again(fact, taken.reply);
        return undefined;
      }
      if (error.message !== this.#behind?.message) this.#hooks.trouble(error);
      this.#remind(advanced ? { kind: 'settle' } : fact);
      return advanced ? undefined : error;
    });
  }

  /** One timer a group; what it should be reminded of is kept, the newest of each kind. */
  #remind(note: Note): void {
    const kept = this.#kept.get(note.kind);
    this.#kept.set(note.kind, kept === undefined ? note : newer(kept, note));
    this.#cancelReminder ??= this.#hooks.later(() => {
      this.#cancelReminder = undefined;
      const notes = [...this.#kept.values()];
      this.#kept.clear();
      for (const one of notes) this.#mailbox.tell(one.kind === 'ledger' ? (this.#headed ?? one) : one); // the newest there is, not the one that failed
    }, REMIND_MS);
  }
}

function newer(older: Note, note: Note): Note {
  if (older.kind !== 'released' || note.kind !== 'released') return note;
  return colourDiff(note.colour, older.colour) >= 0 ? note : older;
}
