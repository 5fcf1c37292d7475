/**
 * The typed client of sluiced: one method a route. Every engine, the command line and the demo
 * speak to the daemon through it, and through nothing else.
 *
 * A reply is checked against the contract before it is handed out: a daemon of another version
 * shows itself here and not later. Errors are those of transport.ts: Refused, Unreachable.
 */
import type { Readable } from 'node:stream';
import type { Type } from '../proxy/doors/typebox.ts';
import { CommandReply, CommandsReply, Figures, GroupList, GroupView, HeldView, Readiness, checker, problemText } from '../proxy/api/contract.ts';
import type { AckBody, CutBody, EpochBody, EpochCommand, GroupBody, MemberBody, ProtectBody, TakeoverBody, UnprotectBody } from '../proxy/api/contract.ts';
import { followEvents, followFigures } from './events.ts';
import type { EventMessage, FollowOptions } from './events.ts';
import { Refused, Transport } from './transport.ts';
import type { AskOptions, Target } from './transport.ts';

export { Refused, Unreachable, SOCKET_DEFAULT } from './transport.ts';
export type { Target } from './transport.ts';
export type { EventMessage, FollowOptions } from './events.ts';

export type HeldFate = UnprotectBody['held'];
const WAIT_DEFAULT_MS = 10_000;
const WAIT_MARGIN_MS = 5000;

/** Compiling a schema costs milliseconds: only those that a run needs are compiled. */
function lazily<S extends Type.TSchema>(schema: S): (value: unknown, place: string) => Type.Static<S> {
  let check: ReturnType<typeof checker<S>> | undefined;
  return (value, place) => {
    check ??= checker(schema);
    const parsed = check(value);
    if (parsed.ok) return parsed.value;
    throw new Refused(200, { code: 'unexpected', message: `${place} is of another version: ${problemText(parsed.problem)}` });
  };
}
const asReply = lazily(CommandReply);
const asAnswers = lazily(CommandsReply);
const asGroup = lazily(GroupView);
const asGroups = lazily(GroupList);
const asHeld = lazily(HeldView);
const asFigures = lazily(Figures);
const asReadiness = lazily(Readiness);

const groupPath = (group: string): string => `/v1/groups/${encodeURIComponent(group)}`;
const memberPath = (group: string, member: string): string => `${groupPath(group)}/members/${encodeURIComponent(member)}`;

export class SluiceClient {
  private readonly transport: Transport;

  constructor(target: Target = {}) {
    this.transport = new Transport(target);
  }

  get place(): string {
    return this.transport.place;
  }

  async groups(): Promise<readonly GroupView[]> {
    return asGroups(await this.transport.ask('GET', '/v1/groups'), this.place);
  }
  async group(group: string): Promise<GroupView> {
    return asGroup(await this.transport.ask('GET', groupPath(group)), this.place);
  }
  apply(group: string, body: GroupBody): Promise<CommandReply> {
    return this.command('PUT', groupPath(group), { body });
  }
  delete(group: string): Promise<CommandReply> {
    return this.command('DELETE', groupPath(group));
  }
  join(group: string, member: string, body: MemberBody): Promise<CommandReply> {
    return this.command('PUT', memberPath(group, member), { body });
  }
  leave(group: string, member: string, held?: HeldFate): Promise<CommandReply> {
    return this.command('DELETE', memberPath(group, member), held === undefined ? {} : { query: { held } });
  }
  protect(group: string, body: ProtectBody = {}): Promise<CommandReply> {
    return this.command('POST', `${groupPath(group)}/protect`, { body });
  }
  cut(group: string, body: CutBody): Promise<CommandReply> {
    return this.command('POST', `${groupPath(group)}/cut`, { body });
  }
  ack(group: string, body: AckBody): Promise<CommandReply> {
    return this.command('POST', `${groupPath(group)}/ack`, { body });
  }
  /** waitMs: answer only when everything committed was handed to the kernel, at the latest after that time. */
  commit(group: string, body: EpochBody, options: { readonly wait?: boolean; readonly waitMs?: number } = {}): Promise<CommandReply> {
    const timeoutMs = options.waitMs ?? WAIT_DEFAULT_MS;
    const wait = options.wait === true ? { query: { wait: 'released', timeoutMs }, replyTimeoutMs: timeoutMs + WAIT_MARGIN_MS } : {};
    return this.command('POST', `${groupPath(group)}/commit`, { body, ...wait });
  }
  rollback(group: string, body: EpochBody): Promise<CommandReply> {
    return this.command('POST', `${groupPath(group)}/rollback`, { body });
  }
  takeover(group: string, body: TakeoverBody): Promise<CommandReply> {
    return this.command('POST', `${groupPath(group)}/takeover`, { body });
  }
  unprotect(group: string, body: UnprotectBody): Promise<CommandReply> {
    return this.command('POST', `${groupPath(group)}/unprotect`, { body });
  }
  /** Commands of every epoch, of many groups at once; each answer is what it would have been alone. */
  async commands(commands: readonly EpochCommand[]): Promise<CommandsReply['answers']> {
    return asAnswers(await this.transport.ask('POST', '/v1/commands', { body: { commands } }), this.place).answers;
  }
  async held(group: string): Promise<HeldView> {
    return asHeld(await this.transport.ask('GET', `${groupPath(group)}/held`), this.place);
  }
  /** What is held, as a pcapng stream. */
  async heldCapture(group: string): Promise<Readable> {
    const reply = await this.transport.open('GET', `${groupPath(group)}/held.pcapng`);
    if (reply.statusCode !== 200) throw await this.transport.refusal(reply);
    return reply.body;
  }
  /** Events from now on (or after `lastEventId`); reconnects by itself. Ends when the signal fires. */
  events(options: FollowOptions = {}): AsyncGenerator<EventMessage, void> {
    return followEvents(this.transport, options);
  }
  /** Everything a watcher shows, once. */
  async figures(group?: string): Promise<Figures> {
    return asFigures(await this.transport.ask('GET', '/v1/figures', group === undefined ? {} : { query: { group } }), this.place);
  }
  /** The same, several times a second, with samples of the held bytes; reconnects by itself. */
  liveFigures(options: Omit<FollowOptions, 'lastEventId'> = {}): AsyncGenerator<Figures, void> {
    return followFigures(this.transport, options);
  }
  /** Not ready is an answer, not an error. */
  async readyz(): Promise<Readiness> {
    const reply = await this.transport.open('GET', '/readyz', { replyTimeoutMs: WAIT_MARGIN_MS });
    if (reply.statusCode !== 200 && reply.statusCode !== 503) throw await this.transport.refusal(reply);
    const text = await this.transport.text(reply);
    try {
      return asReadiness(JSON.parse(text), this.place);
    } catch (error) {
      if (error instanceof Refused) throw error;
      throw new Refused(reply.statusCode, { code: 'unexpected', message: `what answers at ${this.place} is not sluiced` });
    }
  }
  async metrics(): Promise<string> {
    const reply = await this.transport.open('GET', '/metrics');
    if (reply.statusCode !== 200) throw await this.transport.refusal(reply);
    return this.transport.text(reply);
  }
  close(): Promise<void> {
    return this.transport.close();
  }

  private async command(method: 'PUT' | 'POST' | 'DELETE', path: string, options: AskOptions = {}): Promise<CommandReply> {
    return asReply(await this.transport.ask(method, path, options), this.place);
  }
}
