/** The audit log's eyes: what is said about a request, once its outcome is known. */
import type { FastifyRequest } from 'fastify';
import type { Audit, AuditEntry } from './audit.ts';
import { callerOf, commandsOf, routeOf } from './caller.ts';
import type { App } from './commands.ts';

/** Longest name written; what a stranger puts into a path is as long as they like. */
const NAME_CHARACTERS_MAX = 64;

export function auditCommands(app: App, audit: Audit): void {
  app.addHook('preSerialization', (request, _reply, payload, done) => {
    for (const entry of severalOf(request, payload)) audit.record(entry);
    const outcome = outcomeOf(payload);
    const read = request.method === 'GET' || request.method === 'HEAD';
    if (outcome !== undefined && !(read && outcome !== 'unauthorized' && outcome !== 'forbidden')) audit.record(entryOf(request, outcome));
    done(null, payload);
  });
  app.addHook('onSend', (request, reply, payload, done) => {
    if (request.routeOptions.url?.endsWith('/held.pcapng') === true && reply.statusCode === 200) audit.record(entryOf(request, 'sent'));
    done(null, payload);
  });
}

function outcomeOf(payload: unknown): string | undefined {
  if (typeof payload !== 'object' || payload === null) return undefined;
  if ('outcome' in payload && typeof payload.outcome === 'string') return payload.outcome;
  return 'code' in payload && typeof payload.code === 'string' ? payload.code : undefined;
}

/** Each of several commands like one that came alone. */
function severalOf(request: FastifyRequest, payload: unknown): readonly AuditEntry[] {
  const answers = fieldOf(payload, 'answers');
  if (!Array.isArray(answers)) return [];
  const { who, from } = entryOf(request, '');
  return commandsOf(request).map(({ command, group, member, generation, epoch }, i) =>
    ({ who, from, command: `POST /v1/groups/:group/${command}`, group, member, generation, epoch, outcome: outcomeOf(answers[i]) ?? '' }));
}

/** Names of a path are the caller's own words: those of a stranger are left out. */
function entryOf(request: FastifyRequest, outcome: string): AuditEntry {
  const { name: who, rights } = callerOf(request);
  const known = rights.size > 0;
  const { ip, params, body } = request;
  return {
    who,
    from: ip === '' ? undefined : ip,
    command: routeOf(request),
    group: known ? nameIn(params, 'group') : undefined,
    member: known ? nameIn(params, 'member') : undefined,
    generation: known ? numberIn(body, 'generation') : undefined,
    epoch: known ? numberIn(body, 'epoch') : undefined,
    outcome,
  };
}

const fieldOf = (from: unknown, name: string): unknown =>
  (typeof from === 'object' && from !== null && Object.hasOwn(from, name) ? (from as Record<string, unknown>)[name] : undefined);
function nameIn(params: unknown, field: string): string | undefined {
  const value = fieldOf(params, field);
  return typeof value === 'string' ? value.slice(0, NAME_CHARACTERS_MAX) : undefined;
}
function numberIn(body: unknown, field: string): number | undefined {
  const value = fieldOf(body, field);
  return typeof value === 'number' ? value : undefined;
}
