/**
 * The REST API: builds fastify and never listens, so that it can be asked without a socket.
 *
 *     request ─► rate limit ─► who, and may they (access) ─► JSON ─► strict schema ─► route ─► control
 *                              any error on the way ─► refuse ─► {code, message, …} ─► audit
 *
 * A request that still comes while the app closes is answered like any other: control says that the
 * daemon is ending, with a code that an engine knows.
 *
 * Bad input is never a 5xx. The same app is built once for the unix socket and once for TCP.
 */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifySchemaCompiler } from 'fastify';
import { fastify, rateLimit, swagger } from '../doors/http.ts';
import { Value } from '../doors/typebox.ts';
import type { Type } from '../doors/typebox.ts';
import { askForRights } from './access.ts';
import type { Access } from './access.ts';
import { auditCommands } from './audited.ts';
import { addCommandRoutes } from './commands.ts';
import type { App } from './commands.ts';
import { checker, problemText } from './contract.ts';
import type { ApiDeps } from './deps.ts';
import { addObserveRoutes } from './observe.ts';
import { addPageRoutes } from './page.ts';
import { boundByAddress } from './crowd.ts';
import { addSeveralRoute } from './several.ts';
import { refuse, Refused } from './refuse.ts';
import { EventStreams } from './sse.ts';
import type { SseOptions } from './sse.ts';

/** A group of 256 NICs is 30 KB of JSON. */
const BODY_BYTES_MAX = 256 * 1024;
/** Requests of one client in a second: far above what an engine at 100 epochs/s needs. */
const REQUESTS_PER_SECOND_MAX = 20_000;
/** The same of one address of the network: 600 epochs/s, three commands each. */
const REMOTE_PER_SECOND_MAX = 2000;
/** A client that is slow to say its request, headers and body, is cut off; so is one slow to shake hands. */
const REQUEST_MS_MAX = 10_000;
/** How often the slow are looked for. */
const SLOW_CHECK_MS = 1000;
/** Connections of one way in; one more is closed as it comes. Each costs some 20 KB. */
const CONNECTIONS_MAX = 1024;
/** Of these one address of the network may have: an engine, its watchers, a dashboard's streams. */
const PER_ADDRESS_MAX = 256;
const HEADER_BYTES_MAX = 16 * 1024;

export interface AppOptions extends SseOptions {
  readonly access: Access;
  readonly tls?: { readonly cert: string; readonly key: string; readonly clientCa: string | undefined };
  readonly requestsPerSecondMax?: number;
  /** Of several in a request; the same number unless told. */
  readonly commandsPerSecondMax?: number;
  /** Connections of one address. */
  readonly perAddressMax?: number;
  /** Directory of the dashboard's files; none = no dashboard. */
  readonly page?: string;
}

export async function buildApp(deps: ApiDeps, options: AppOptions): Promise<App> {
  const app: App = fastify({ ...serverOptions(options), bodyLimit: BODY_BYTES_MAX, logger: false, forceCloseConnections: 'idle', return503OnClosing: false })
    .withTypeProvider<TypeBoxTypeProvider>();
  app.setErrorHandler((error, request, reply) => refuse(deps, error, request, reply));
  app.setNotFoundHandler((request, reply) =>
    refuse(deps, new Refused('not_found', `there is no ${request.method} ${request.url.split('?')[0]}; /openapi.json lists what there is`), request, reply));
  readJson(app);
  await app.register(rateLimit, {
    global: false, // asked below, of every request: also of those that no route answers
    max: options.requestsPerSecondMax ?? perSecondMax(options),
    timeWindow: 1000,
    keyGenerator: (request) => request.ip ?? 'unix', // a unix socket has no address
    addHeaders: { 'x-ratelimit-limit': false, 'x-ratelimit-remaining': false, 'x-ratelimit-reset': false },
    addHeadersOnExceeding: { 'x-ratelimit-limit': false, 'x-ratelimit-remaining': false, 'x-ratelimit-reset': false }, // of every reply below it
    errorResponseBuilder: (_request, { max }) => new Refused('rate_limited', `more than ${max} requests in a second; slow down`),
  });
  app.addHook('onRequest', app.rateLimit());
  askForRights(app, options.access);
  auditCommands(app, deps.audit);
  await app.register(swagger, {
    openapi: { openapi: '3.1.0', info: { title: 'Sluice', description: 'Holds the output of protected VM groups until their checkpoint commits', version: deps.version } },
  });
  const streams = new EventStreams(deps, options);
  options.access.onReplaced(() => streams.drop());
  app.addHook('preClose', () => Promise.resolve(streams.close()));
  addCommandRoutes(app, deps);
  addSeveralRoute(app, deps, options.commandsPerSecondMax ?? perSecondMax(options));
  addObserveRoutes(app, deps, streams);
  if (options.page !== undefined && !addPageRoutes(app, options.page)) deps.log.info({ page: options.page }, 'the dashboard was not built; make build');
  app.server.maxConnections = CONNECTIONS_MAX;
  boundByAddress(app.server, options.perAddressMax ?? PER_ADDRESS_MAX);
  await app.ready();
  return app;
}

/** Several commands in one request count like as many requests. */
const perSecondMax = ({ access }: AppOptions): number => (access.isOpen ? REQUESTS_PER_SECOND_MAX : REMOTE_PER_SECOND_MAX);

function serverOptions({ tls }: AppOptions): object {
  const bounds = { requestTimeout: REQUEST_MS_MAX, schemaController: COMPILERS };
  const http = { headersTimeout: REQUEST_MS_MAX, connectionsCheckingInterval: SLOW_CHECK_MS, maxHeaderSize: HEADER_BYTES_MAX };
  if (tls === undefined) return { ...bounds, http };
  const { cert, key, clientCa } = tls;
  const asked = clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true };
  return { ...bounds, https: { ...http, cert, key, minVersion: 'TLSv1.2', handshakeTimeout: REQUEST_MS_MAX, ...asked } };
}

/** No body at all is an empty object; `__proto__` and its like are unknown fields like any other. */
function readJson(app: App): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => {
    const text = body.toString();
    if (text === '') return done(null, undefined);
    try {
      done(null, JSON.parse(text));
    } catch (error) {
      done(new Refused('bad_request', `the body is not JSON: ${error instanceof Error ? error.message : String(error)}`), undefined);
    }
  });
}

/** There is nothing to convert in it: the parts of every route of an epoch, of which there may be thousands a second. */
function isAllText(schema: Type.TSchema): boolean {
  const { properties } = schema as { readonly properties?: Readonly<Record<string, { readonly type?: unknown }>> };
  return properties !== undefined && Object.values(properties).every(({ type }) => type === 'string');
}

const strictValidator: FastifySchemaCompiler<Type.TSchema> = ({ schema, httpPart }) => {
  const check = checker(schema);
  const converts = httpPart !== 'body' && !isAllText(schema);
  return (input: unknown) => {
    const value = converts ? Value.Convert(schema, input) : (input ?? {}); // numbers in a query are text
    const result = check(value);
    return result.ok ? { value } : { error: new Refused('bad_request', problemText(result.problem)) };
  };
};

/**
 * Of a schema's two compilers the first is ours, and answers need none: they are made by code that has
 * their types (answer.ts, refuse.ts). Fastify's own are not even loaded then, which is a fifth of what
 * the start of a daemon costs.
 */
const COMPILERS = { compilersFactory: { buildValidator: () => strictValidator, buildSerializer: () => () => JSON.stringify } };
