/**
 * One mapping from everything that can go wrong to one reply: {code, message, group, generation,
 * open}. A refusal is an expected answer; only what is none of these is a fault of the daemon (500,
 * logged with its stack).
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { EdgeError } from '../ports.ts';
import { callerOf, groupOf, may } from './caller.ts';
import { ERROR_STATUS } from './contract.ts';
import type { ErrorCode, Refusal } from './contract.ts';
import type { ApiDeps } from './deps.ts';

export class Refused extends Error {
  override readonly name = 'Refused';
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** fastify's own errors, by the status it gave them. */
const BY_STATUS: Readonly<Record<number, { code: ErrorCode; message?: string }>> = {
  400: { code: 'bad_request' },
  413: { code: 'too_large', message: 'the body is too large; a group file of 256 NICs fits well within the limit' },
  414: { code: 'bad_request', message: 'the address is too long' },
  415: { code: 'unsupported_media_type', message: 'send JSON with the header content-type: application/json' },
  429: { code: 'rate_limited' },
};

const PATH_CHARACTERS_MAX = 200;
/** Refusals that a stranger can cause as often as they like; the audit log counts them. */
const OFTEN: ReadonlySet<ErrorCode> = new Set(['unauthorized', 'forbidden', 'rate_limited', 'not_found']);

const COSTLY: ReadonlySet<ErrorCode> = new Set(['unauthorized', 'rate_limited']);
const isRemote = ({ ip }: FastifyRequest): boolean => typeof ip === 'string' && ip !== '';

function refusalOf(error: unknown): { code: ErrorCode; message: string } {
  if (error instanceof Refused) return { code: error.code, message: error.message };
  if (error instanceof EdgeError) return { code: error.code, message: `${error.message}; ${error.fix}` };
  if (error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number') {
    const known = BY_STATUS[error.statusCode];
    if (known !== undefined) return { code: known.code, message: known.message ?? error.message };
  }
  return { code: 'internal', message: 'the daemon failed in a way it did not expect; its log has the cause' };
}

/** What refused it, in the API's shape; counted, and said in the log. `about`: the group it was asked of. */
export function refusalTo(deps: ApiDeps, error: unknown, request: FastifyRequest, about: string | undefined): Refusal {
  const { code, message } = refusalOf(error);
  // What a group's state is, is for those who may see it: a refusal is no way around.
  const state = about !== undefined && may(callerOf(request), 'observe', about) ? deps.control.get(about) : undefined;
  const refusal: Refusal = {
    code,
    message,
    ...(about === undefined ? {} : { group: about }),
    ...(state === undefined ? {} : { generation: state.generation, open: state.sealed + 1 }),
  };
  deps.metrics.refusal(code);
  // Without its query: whatever a client put there by mistake is not for the log.
  const path = request.url.split('?')[0]?.slice(0, PATH_CHARACTERS_MAX);
  if (code === 'internal') deps.log.error({ err: error, path, group: about }, 'internal error');
  else if (OFTEN.has(code)) deps.log.debug({ code, path }, message);
  else deps.log.info({ code, path, group: about, generation: refusal.generation }, message);
  return refusal;
}

export function refuse(deps: ApiDeps, error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const refusal = refusalTo(deps, error, request, groupOf(request));
  // Over the network, whoever floods has to connect anew for every request that is refused.
  if (COSTLY.has(refusal.code) && isRemote(request)) void reply.header('connection', 'close');
  return reply.code(ERROR_STATUS[refusal.code]).send(refusal);
}
