/** The audit log's eyes: what is said about a request, once its outcome is known. */
import type { FastifyRequest } from 'fastify';
import type { Audit, AuditEntry } from './audit.ts';
import { callerOf, groupOf, routeOf } from './caller.ts';
import type { App } from './commands.ts';

/** Longest name written; what a stranger puts into a path is as long as they like. */
const NAME_CHARACTERS_MAX = 64;

export function auditCommands(app: App, audit: Audit): void {
  app.addHook('preSerialization', async (request, _reply, payload) => {
    const outcome = outcomeOf(payload);
    const read = request.method === 'GET' || request.method === 'HEAD';
    if (outcome === undefined || (read && outcome !== 'unauthorized' && outcome !== 'forbidden')) return payload;
    audit.record({ ...described(request), outcome });
    return payload;
  });
  app.addHook('onSend', async (request, reply, payload) => {
    if (request.routeOptions.url?.endsWith('/held.pcapng') === true && reply.statusCode === 200) audit.record({ ...described(request), outcome: 'sent' });
    return payload;
  });
}

function outcomeOf(payload: unknown): string | undefined {
  if (typeof payload !== 'object' || payload === null) return undefined;
  if ('outcome' in payload && typeof payload.outcome === 'string') return payload.outcome;
  return 'code' in payload && typeof payload.code === 'string' ? payload.code : undefined;
}

/** Names of a path are the caller's own words: those of a stranger are left out. */
function described(request: FastifyRequest): Omit<AuditEntry, 'outcome'> {
  const { name: who, rights } = callerOf(request);
  const known = rights.size > 0;
  const { ip } = request;
  return {
    who,
    ...(typeof ip === 'string' && ip !== '' ? { from: ip } : {}),
    command: routeOf(request),
    ...(known ? { ...textField('group', groupOf(request)), ...textField('member', fieldOf(request.params, 'member')) } : {}),
    ...(known ? { ...numberField('generation', request.body), ...numberField('epoch', request.body) } : {}),
  };
}

const fieldOf = (from: unknown, name: string): unknown => (typeof from === 'object' && from !== null ? Object.getOwnPropertyDescriptor(from, name)?.value : undefined);
const textField = (name: string, value: unknown): Record<string, string> => (typeof value === 'string' ? { [name]: value.slice(0, NAME_CHARACTERS_MAX) } : {});
function numberField(name: string, body: unknown): Record<string, number> {
  const value = fieldOf(body, name);
  return typeof value === 'number' ? { [name]: value } : {};
}
