/**
 * Routes that change something. Each is: schema (strict) -> core command -> control -> state.
 *
 * A refusal changes nothing and is thrown as Refused; the error handler gives it its status. With
 * `?wait=released` a commit answers when the watermark has passed its epoch, when that can't happen
 * any more (rollback, end of protection, end of the daemon), or after timeoutMs: the reply's
 * `released` says which.
 */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { epoch, generation } from '../core/types.ts';
import type { Command, GroupSpec, GroupState } from '../core/types.ts';
import { commandReply } from './answer.ts';
import {
  AckBody, CommandReply, CommitQuery, CutBody, EpochBody, GroupBody, GroupParams, LeaveQuery, MemberBody, MemberParams, NoQuery,
  parseGroup, parseMember, problemText, ProtectBody, Refusal, TakeoverBody, UnprotectBody,
} from './contract.ts';
import type { Parsed } from './contract.ts';
import type { Answer, ApiDeps } from './deps.ts';
import { Refused } from './refuse.ts';

export type App = FastifyInstance<RawServerDefault, IncomingMessage, ServerResponse, FastifyBaseLogger, TypeBoxTypeProvider>;

/** How long `?wait=released` waits when the client doesn't say. */
const WAIT_DEFAULT_MS = 10_000;

/** Replies of every route: its own, and a refusal for all the rest. */
export const replies = <S>(ok: S): { 200: S; '4xx': typeof Refusal; '5xx': typeof Refusal } => ({ 200: ok, '4xx': Refusal, '5xx': Refusal });

export function addCommandRoutes(app: App, deps: ApiDeps): void {
  addGroupRoutes(app, deps);
  addEpochRoutes(app, deps);
  addProtectionRoutes(app, deps);
}

function addGroupRoutes(app: App, deps: ApiDeps): void {
  app.put('/v1/groups/:group', {
    schema: { summary: 'Create a group or change it', params: GroupParams, querystring: NoQuery, body: GroupBody, response: replies(CommandReply) },
  }, ({ params, body }) => run(deps, params.group, { kind: 'apply', spec: parsed(parseGroup(body, params.group)) }));

  app.delete('/v1/groups/:group', {
    schema: { summary: 'Delete an unprotected group', params: GroupParams, querystring: NoQuery, response: replies(CommandReply) },
  }, ({ params }) => run(deps, params.group, { kind: 'delete' }));

  app.put('/v1/groups/:group/members/:member', {
    schema: { summary: 'A member joins', params: MemberParams, querystring: NoQuery, body: MemberBody, response: replies(CommandReply) },
  }, ({ params, body }) => run(deps, params.group, joinCommand(deps, params.group, parsed(parseMember(body, params.member)))));

  app.delete('/v1/groups/:group/members/:member', {
    schema: { summary: 'A member leaves; under protection `held` says what becomes of its frames', params: MemberParams, querystring: LeaveQuery, response: replies(CommandReply) },
  }, ({ params, query }) =>
    run(deps, params.group, { kind: 'leave', member: params.member, ...(query.held === undefined ? {} : { held: query.held }) }));
}

function addEpochRoutes(app: App, deps: ApiDeps): void {
  const closing = new AbortController();
  app.addHook('preClose', () => Promise.resolve(closing.abort()));

  app.post('/v1/groups/:group/cut', {
    schema: { summary: 'Seal the open epoch and open the next', params: GroupParams, querystring: NoQuery, body: CutBody, response: replies(CommandReply) },
  }, ({ params, body }) =>
    run(deps, params.group, { kind: 'cut', ...numbers(body), ...(body.member === undefined ? {} : { member: body.member }) }));

  app.post('/v1/groups/:group/ack', {
    schema: { summary: 'These members\' checkpoints are durable', params: GroupParams, querystring: NoQuery, body: AckBody, response: replies(CommandReply) },
  }, ({ params, body }) =>
    run(deps, params.group, { kind: 'ack', ...numbers(body), ...(body.members === undefined ? {} : { members: body.members }) }));

  app.post('/v1/groups/:group/commit', {
    schema: { summary: 'Commit every epoch up to this one and release its frames', params: GroupParams, querystring: CommitQuery, body: EpochBody, response: replies(CommandReply) },
  }, async ({ params, body, query }) => {
    const reply = await run(deps, params.group, { kind: 'commit', ...numbers(body) });
    if (query.wait === undefined || reply.released >= body.epoch) return reply;
    const state = await released(deps, params.group, body, { timeoutMs: query.timeoutMs ?? WAIT_DEFAULT_MS, closing: closing.signal });
    return commandReply(reply.outcome, state, deps.control.counters(params.group));
  });

  app.post('/v1/groups/:group/rollback', {
    schema: { summary: 'Restore this epoch in place', params: GroupParams, querystring: NoQuery, body: EpochBody, response: replies(CommandReply) },
  }, ({ params, body }) => run(deps, params.group, { kind: 'rollback', ...numbers(body) }));

  app.post('/v1/groups/:group/takeover', {
    schema: { summary: 'A higher generation goes on from this epoch', params: GroupParams, querystring: NoQuery, body: TakeoverBody, response: replies(CommandReply) },
  }, ({ params, body: { members, ...body } }) => {
    const moved = members === undefined ? {} : { members: parsed(parseGroup({ members }, params.group)).members };
    return run(deps, params.group, { kind: 'takeover', ...numbers(body), ...moved });
  });
}

function addProtectionRoutes(app: App, deps: ApiDeps): void {
  app.post('/v1/groups/:group/protect', {
    schema: { summary: 'Hold from now on; epoch 1 opens', params: GroupParams, querystring: NoQuery, body: ProtectBody, response: replies(CommandReply) },
  }, ({ params, body }) =>
    run(deps, params.group, { kind: 'protect', ...(body.generation === undefined ? {} : { generation: generation(body.generation) }) }));

  app.post('/v1/groups/:group/unprotect', {
    schema: { summary: 'Stop holding', params: GroupParams, querystring: NoQuery, body: UnprotectBody, response: replies(CommandReply) },
  }, ({ params, body }) => run(deps, params.group, { kind: 'unprotect', generation: generation(body.generation), held: body.held }));
}

export const numbers = (body: EpochBody): { generation: ReturnType<typeof generation>; epoch: ReturnType<typeof epoch> } => ({
  generation: generation(body.generation),
  epoch: epoch(body.epoch),
});

function parsed<T>(result: Parsed<T>): T {
  if (!result.ok) throw new Refused('bad_request', problemText(result.problem));
  return result.value;
}

export async function run(deps: ApiDeps, group: string, command: Command): Promise<CommandReply> {
  const before = command.kind === 'delete' ? deps.control.get(group) : undefined;
  const startedMs = performance.now();
  return answered(deps, { group, command, before, startedMs }, await deps.control.submit(group, command));
}

interface Asked {
  readonly group: string;
  readonly command: Command;
  /** Of a group that may be gone afterwards. */
  readonly before?: GroupState | undefined;
  readonly startedMs: number;
}
/** What the asker is told. Throws Refused where the command was denied. */
export function answered(deps: ApiDeps, { group, command, before, startedMs }: Asked, { reply, state }: Answer): CommandReply {
  deps.metrics.command(command.kind, (performance.now() - startedMs) / 1000);
  if (reply.outcome === 'denied') throw new Refused(reply.denial.code, reply.denial.message);
  const after = state ?? before;
  if (after === undefined) throw new Refused('no_such_group', `there is no group "${group}"; create it with \`sluice group apply\` or PUT /v1/groups/${group}`);
  deps.log.debug({ group, command: command.kind, generation: after.generation, epoch: 'epoch' in command ? command.epoch : after.sealed + 1, outcome: reply.outcome }, 'command');
  return commandReply(reply.outcome, after, deps.control.counters(group));
}

function joinCommand(deps: ApiDeps, group: string, member: GroupSpec['members'][number]): Command {
  const state = deps.control.get(group);
  if (state !== undefined) {
    const others = state.spec.members.filter(({ name }) => name !== member.name);
    parsed(parseGroup({ members: [...others, member].map(({ nics, ...who }) => ({ ...who, nics: nics.map(({ vlan, ...nic }) => (vlan === 0 ? nic : { ...nic, vlan })) })) }, group));
  }
  return { kind: 'join', member };
}

/** The group's state once `released` has reached the epoch, or can't, or the time is up, or we end. */
async function released(deps: ApiDeps, group: string, target: EpochBody, wait: { timeoutMs: number; closing: AbortSignal }): Promise<GroupState> {
  const settled = (): boolean => {
    const state = deps.control.get(group);
    return state === undefined || state.released >= target.epoch || state.phase === 'idle' || state.generation !== target.generation || state.committed < target.epoch;
  };
  if (!settled() && !wait.closing.aborted) await untilSettled(deps, group, settled, wait);
  const state = deps.control.get(group);
  if (state === undefined) throw new Refused('no_such_group', `group "${group}" was deleted meanwhile`);
  return state;
}

function untilSettled(deps: ApiDeps, group: string, settled: () => boolean, { timeoutMs, closing }: { timeoutMs: number; closing: AbortSignal }): Promise<void> {
  return new Promise<void>((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      leave();
      closing.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, timeoutMs);
    closing.addEventListener('abort', end);
    // An event may be published before its state is in place: look once the sender is done.
    const leave = deps.events.subscribe(({ event }) => {
      if (event.group === group) setImmediate(() => { if (settled()) end(); });
    });
  });
}
