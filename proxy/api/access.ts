/**
 * Who asks, and what they may.
 *
 *     unix socket ── whoever may open it ───────────────────► everything; known by user and process
 *     TCP ─┬─ bearer token ───────► its line ───────────────► the rights of that line
 *          └─ client certificate ─┬─ line `cert:NAME` ──────► the rights of that line
 *                                 └─ no lines configured ───► everything (its CA is the list)
 *
 * Rights are a ladder, and each is for one group or for all ("*"):
 *     observe      read the group's state and events
 *     checkpoint   the engine's verbs: protect, cut, ack, commit, rollback, takeover, unprotect
 *     administer   the group itself: apply, delete, join, leave, a takeover that moves members to
 *                  other ports, and the held frames' contents
 *
 * It is decided before anything of the request is parsed, so that a refusal says nothing about a
 * group that the caller may not see. Two things are in the body, and asked for once it has its shape:
 * members that a takeover moves, and the groups of several commands. A route that ROUTE_RIGHTS does
 * not name asks for everything. Secrets are kept as SHA-256 only: what is compared tells nothing by the time it takes.
 */
import { createHash } from 'node:crypto';
import { TLSSocket } from 'node:tls';
import type { Socket } from 'node:net';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { COMMANDS_ROUTE, callerOf, commandsOf, everything, groupOf, may, mayAnywhere, rememberCallers, routeOf, setCaller } from './caller.ts';
import type { Caller, Right } from './caller.ts';
import type { App } from './commands.ts';
import { Refused } from './refuse.ts';

/** One line of the tokens file. */
export interface Credential {
  readonly proof: { readonly kind: 'token'; readonly sha256: string } | { readonly kind: 'certificate'; readonly name: string };
  readonly caller: Caller;
}
export const sha256 = (secret: string): string => createHash('sha256').update(secret).digest('hex');

/** What one way in asks for; replaced as a whole when its file is read again. */
export class Access {
  readonly #peerOf: ((socket: Socket) => string) | undefined;
  readonly #byToken = new Map<string, Caller>();
  readonly #byCertificate = new Map<string, Caller>();
  readonly #listeners: (() => void)[] = [];
  #listed = false;

  private constructor(peerOf: ((socket: Socket) => string) | undefined) {
    this.#peerOf = peerOf;
  }
  /** Everyone who reaches it may do everything: the socket's mode is the check. */
  static open(peerOf: (socket: Socket) => string): Access {
    return new Access(peerOf);
  }
  /** undefined = no lines: a certificate that TLS accepted is enough. */
  static guarded(credentials: readonly Credential[] | undefined): Access {
    const access = new Access(undefined);
    if (credentials !== undefined) access.replace(credentials);
    return access;
  }

  get isOpen(): boolean {
    return this.#peerOf !== undefined;
  }

  replace(credentials: readonly Credential[]): void {
    this.#listed = true;
    this.#byToken.clear();
    this.#byCertificate.clear();
    for (const { proof, caller } of credentials) {
      if (proof.kind === 'token') this.#byToken.set(proof.sha256, caller);
      else this.#byCertificate.set(proof.name, caller);
    }
    for (const listener of this.#listeners) listener();
  }

  /** What was granted before is asked again. */
  onReplaced(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** A proof that was offered must hold: a wrong token is not mended by a good certificate. */
  identify(socket: Socket, authorization: string | undefined): Caller | undefined {
    if (this.#peerOf !== undefined) return everything(this.#peerOf(socket));
    const certificate = certificateName(socket);
    if (!this.#listed) return certificate === undefined ? undefined : everything(`cert:${certificate}`);
    if (authorization === undefined) return certificate === undefined ? undefined : this.#byCertificate.get(certificate);
    const token = /^bearer +([^\s]+) *$/i.exec(authorization)?.[1];
    return token === undefined ? undefined : this.#byToken.get(sha256(token));
  }
}

function certificateName(socket: Socket): string | undefined {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
  const name: unknown = socket.getPeerCertificate().subject?.CN;
  return typeof name === 'string' ? name : '';
}

/** 'caller' = whoever is known; what they see is filtered by the route. */
const ROUTE_RIGHTS: Readonly<Record<string, Right | 'caller'>> = {
  'GET /v1/groups': 'caller',
  'GET /v1/groups/:group': 'observe',
  'PUT /v1/groups/:group': 'administer',
  'DELETE /v1/groups/:group': 'administer',
  'PUT /v1/groups/:group/members/:member': 'administer',
  'DELETE /v1/groups/:group/members/:member': 'administer',
  'POST /v1/groups/:group/protect': 'checkpoint',
  'POST /v1/groups/:group/cut': 'checkpoint',
  'POST /v1/groups/:group/ack': 'checkpoint',
  'POST /v1/groups/:group/commit': 'checkpoint',
  'POST /v1/groups/:group/rollback': 'checkpoint',
  'POST /v1/groups/:group/takeover': 'checkpoint',
  'POST /v1/groups/:group/unprotect': 'checkpoint',
  'POST /v1/commands': 'caller', // and "checkpoint" on each group that it names
  'GET /v1/groups/:group/held': 'observe',
  'GET /v1/groups/:group/held.pcapng': 'administer',
  'GET /v1/events': 'caller',
  'GET /v1/figures': 'caller',
  'GET /v1/figures/live': 'caller',
  'GET /healthz': 'caller',
  'GET /readyz': 'caller',
  'GET /metrics': 'observe',
  'GET /openapi.json': 'caller',
};

/** The dashboard's own files say nothing of any group. */
const PAGE = /^GET \/ui(\/|$)/;

export function askForRights(app: App, access: Access): void {
  rememberCallers(app);
  app.addHook('onRequest', (request, reply, done) => {
    identify(access, request, reply);
    mustNotBePage(request);
    if (request.routeOptions.url === undefined) return done(); // there is no such route, and that is all that is said
    const right = ROUTE_RIGHTS[routeOf(request)] ?? (PAGE.test(routeOf(request)) ? 'caller' : 'administer');
    if (right !== 'caller') mustHave(request, right, groupOf(request));
    if (request.routeOptions.url === COMMANDS_ROUTE && !mayAnywhere(callerOf(request), 'checkpoint')) mustHave(request, 'checkpoint', undefined);
    const { query } = request;
    const asked = typeof query === 'object' && query !== null && 'group' in query ? query.group : undefined;
    if (typeof asked === 'string') mustHave(request, 'observe', asked);
    done();
  });
  app.addHook('preHandler', (request, _reply, done) => {
    const { body } = request;
    const moves = routeOf(request).endsWith('/takeover') && typeof body === 'object' && body !== null && 'members' in body;
    if (moves) mustHave(request, 'administer', groupOf(request));
    for (const { group } of commandsOf(request)) mustHave(request, 'checkpoint', group);
    done();
  });
}

function identify(access: Access, request: FastifyRequest, reply: FastifyReply): void {
  const caller = access.identify(request.raw.socket, request.headers.authorization);
  if (caller !== undefined) {
    setCaller(request, caller);
    return;
  }
  void reply.header('www-authenticate', 'Bearer');
  throw new Refused('unauthorized', 'who are you? Send "authorization: Bearer" with a token of this daemon, or come with a client certificate that it lists');
}

/**
 * A browser that holds a client certificate shows it for any page that asks. No page of ours gives a
 * command, so whatever changes something and says its `origin`, as browsers do, is of another's.
 */
function mustNotBePage({ method, headers }: FastifyRequest): void {
  if (method === 'GET' || method === 'HEAD' || headers.origin === undefined) return;
  throw new Refused('forbidden', 'commands are not taken from web pages; send them without the header "origin"');
}

function mustHave(request: FastifyRequest, right: Right, group: string | undefined): void {
  const caller = callerOf(request);
  if (may(caller, right, group)) return;
  const what = group === undefined || !/^[a-z0-9-]{1,32}$/.test(group) ? 'every group' : `group "${group}"`;
  throw new Refused('forbidden', `${caller.name} may not do this: it needs "${right}" on ${what}`);
}
