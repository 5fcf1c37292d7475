/**
 * Who asks: a name, and rights by group. Set once a request, by access.ts; nobody until then.
 */
import type { FastifyRequest } from 'fastify';
import type { CommandsBody, EpochCommand } from './contract.ts';

export const RIGHTS = ['observe', 'checkpoint', 'administer'] as const;
export type Right = (typeof RIGHTS)[number];
export const EVERY_GROUP = '*';

export interface Caller {
  /** For the audit log. */
  readonly name: string;
  /** Highest right by group. */
  readonly rights: ReadonlyMap<string, Right>;
}
export const everything = (name: string): Caller => ({ name, rights: new Map([[EVERY_GROUP, 'administer']]) });

/** undefined = of no group in particular: only a right on every group counts. */
export function may(caller: Caller, right: Right, group: string | undefined): boolean {
  const level = RIGHTS.indexOf(right);
  const has = (name: string): boolean => {
    const found = caller.rights.get(name);
    return found !== undefined && RIGHTS.indexOf(found) >= level;
  };
  return has(EVERY_GROUP) || (group !== undefined && has(group));
}

/** On some group, or on all. */
export function mayAnywhere({ rights }: Caller, right: Right): boolean {
  return [...rights.values()].some((one) => RIGHTS.indexOf(one) >= RIGHTS.indexOf(right));
}

const NOBODY: Caller = { name: 'nobody', rights: new Map() };
const CALLER = 'caller';
export const rememberCallers = (app: { decorateRequest(name: string): unknown }): void => void app.decorateRequest(CALLER);
export function setCaller(request: FastifyRequest, caller: Caller): void {
  request.setDecorator(CALLER, caller);
}
/** Nobody, until it is known who asks. */
export const callerOf = (request: FastifyRequest): Caller => request.getDecorator<Caller | undefined>(CALLER) ?? NOBODY;

export const routeOf = (request: FastifyRequest): string =>
  `${request.method === 'HEAD' ? 'GET' : request.method} ${request.routeOptions.url ?? '-'}`;
/** The group in the path, as it was written: not yet checked. */
export function groupOf(request: FastifyRequest): string | undefined {
  const { params } = request;
  const has = typeof params === 'object' && params !== null && 'group' in params;
  return has && typeof params.group === 'string' ? params.group : undefined;
}

export const COMMANDS_ROUTE = '/v1/commands';
/** Of a request of several commands; its body was checked. */
export function commandsOf(request: FastifyRequest): readonly EpochCommand[] {
  return request.routeOptions.url === COMMANDS_ROUTE ? (request.body as CommandsBody).commands : [];
}
