/**
 * What an engine knows of its group, and how it keeps knowing it when something goes wrong.
 *
 *   command ─► daemon ─┬─ reply ────────────► learned
 *                      ├─ passing refusal ──► skipped (too many epochs, too many requests)
 *                      ├─ epoch_out_of_order ► someone else acted: ask for the state, drop the command
 *                      └─ no answer, 503 ───► wait, ask for the state, send the same again: if it
 *                                             was performed after all, the repeat is `ignored`
 *
 * Calls of several lanes run side by side; a recovery runs alone. It begins when no call is under
 * way and the next call waits for its end, so the state it brings is newer than every reply before.
 *
 * `fenced` and every other refusal is the caller's end: another engine has taken over, or the group
 * is no longer protected. With `follow` a new generation is taken on instead, for demonstrations.
 * Bound: a daemon in trouble for troubleMaxMs is given up, and its error thrown.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { CommandReply } from '../../proxy/api/contract.ts';
import { Refused, Unreachable } from '../client.ts';
import type { SluiceClient } from '../client.ts';
import { Wakeup } from './wakeup.ts';

const RETRY_MS = 50;
const PASSING: readonly string[] = ['too_many_epochs', 'rate_limited', 'too_many_clients'];
const TROUBLE: readonly string[] = ['journal_failed', 'plane_down', 'stopping', 'internal'];

export type GroupNow = Pick<CommandReply, 'generation' | 'open' | 'sealed' | 'committed' | 'released' | 'held'>;

export interface SessionOptions {
  readonly group: string;
  readonly follow: boolean;
  readonly troubleMaxMs: number;
}

export interface Attempt {
  readonly reply: CommandReply;
  /** Around the call; undefined when it took more than one. */
  readonly tookMs: number | undefined;
}

/** The daemon's (or of a proxy before it), and it may pass. */
export const isTrouble = (error: unknown): error is Error =>
  error instanceof Unreachable || (error instanceof Refused && (error.status === 503 || TROUBLE.includes(error.code)));

export class GroupSession {
  private readonly client: Pick<SluiceClient, 'group'>;
  private readonly options: SessionOptions;
  private state: GroupNow | undefined;
  mode: 'explicit' | 'acks' = 'explicit';
  skipped = 0;
  resyncs = 0;
  private underWay = 0;
  private readonly quiet = new Wakeup();
  private recovery: Promise<void> | undefined;

  constructor(client: Pick<SluiceClient, 'group'>, options: SessionOptions) {
    this.client = client;
    this.options = options;
  }

  /** First look. Every error is thrown, and an unprotected group is one. */
  async begin(): Promise<void> {
    await this.look();
  }

  get now(): GroupNow {
    if (this.state === undefined) throw new Error('the group\'s state is asked for before begin');
    return this.state;
  }

  get maybeNow(): GroupNow | undefined {
    return this.state;
  }

  /** undefined: the command was not accepted, for a reason that is dealt with. */
  async attempt(call: () => Promise<CommandReply>): Promise<Attempt | undefined> {
    const beganMs = performance.now();
    for (let calls = 1; ; calls += 1) {
      while (this.recovery !== undefined) await this.recovery;
      try {
        return await this.oneCall(call, calls === 1);
      } catch (error) {
        if (error instanceof Refused && PASSING.includes(error.code)) {
          this.skipped += 1;
          return undefined;
        }
        const troubled = isTrouble(error);
        if (!troubled && !this.othersActed(error)) throw error;
        if (performance.now() - beganMs > this.options.troubleMaxMs) throw error;
        await this.recover();
        if (!troubled) return undefined;
      }
    }
  }

  /** One call, its reply learned, nothing repeated: for a caller that cannot wait out a trouble. */
  async once(call: () => Promise<CommandReply>): Promise<CommandReply> {
    while (this.recovery !== undefined) await this.recovery;
    return (await this.oneCall(call, true)).reply;
  }

  /** After `once` failed: the state anew. What `attempt` would throw is thrown. */
  async recoverFrom(error: unknown): Promise<void> {
    if (error instanceof Refused && PASSING.includes(error.code)) this.skipped += 1;
    else if (isTrouble(error) || this.othersActed(error)) await this.recover();
    else throw error;
  }

  private async oneCall(call: () => Promise<CommandReply>, first: boolean): Promise<Attempt> {
    const sentMs = performance.now();
    this.underWay += 1;
    try {
      const reply = await call();
      this.learn(reply);
      return { reply, tookMs: first ? performance.now() - sentMs : undefined };
    } finally {
      this.underWay -= 1;
      if (this.underWay === 0) this.quiet.wake();
    }
  }

  private othersActed(error: unknown): boolean {
    return error instanceof Refused && (error.code === 'epoch_out_of_order' || (error.code === 'fenced' && this.options.follow));
  }

  /** One at a time; who comes while it runs shares it. */
  private async recover(): Promise<void> {
    this.recovery ??= this.recoverAlone().finally(() => (this.recovery = undefined));
    await this.recovery;
  }

  private async recoverAlone(): Promise<void> {
    this.resyncs += 1;
    const beganMs = performance.now();
    while (this.underWay > 0) await this.quiet.wait(RETRY_MS);
    for (;;) {
      await sleep(RETRY_MS);
      try {
        return await this.look();
      } catch (error) {
        if (!isTrouble(error) || performance.now() - beganMs > this.options.troubleMaxMs) throw error;
      }
    }
  }

  private async look(): Promise<void> {
    const view = await this.client.group(this.options.group);
    if (view.phase !== 'protected') {
      throw new Refused(409, { code: 'not_protected', message: `group ${view.group} is ${view.phase}; protect it first: sluice protect ${view.group}` });
    }
    const known = this.state;
    if (known !== undefined && view.generation !== known.generation && !this.options.follow) {
      throw new Refused(409, { code: 'fenced', message: `group ${view.group} is at generation ${view.generation}, this engine at ${known.generation}: another has taken over` });
    }
    this.state = view;
    this.mode = view.spec.commit ?? 'explicit';
  }

  /** Replies of two lanes may overtake each other: within a generation the newer one has more open. */
  private learn(reply: CommandReply): void {
    const known = this.state;
    if (known !== undefined && reply.generation === known.generation && reply.open < known.open) return;
    this.state = reply;
  }
}
