/** Routes that only look: groups, held frames, events, health, metrics, the schema itself. */
import { Readable } from 'node:stream';
import { Type } from '../doors/typebox.ts';
import { callerOf, may } from './caller.ts';
import { GroupList, GroupParams, GroupView, DumpQuery, EventsQuery, Figures, FiguresQuery, Health, HeldView, NoQuery, Readiness, Refusal } from './contract.ts';
import { groupView, heldView } from './answer.ts';
import type { App } from './commands.ts';
import { replies } from './commands.ts';
import type { ApiDeps } from './deps.ts';
import type { GroupState } from '../core/types.ts';
import { figuresOf, seenBy } from './figures.ts';
import { heldCapture } from './pcapng.ts';
import { Refused } from './refuse.ts';
import type { EventStreams } from './sse.ts';

/** Most bytes of frames copied for a capture when the client doesn't say. */
const DUMP_BYTES_MAX = 64 * 1024 * 1024;

/** Replies that are not made from a schema: streams and ready text. */
const Capture = Type.Unsafe<Readable>({ type: 'string', description: 'pcapng' });
const Exposition = Type.Unsafe<string>({ type: 'string', description: 'Prometheus text format' });
const Document = Type.Unsafe<string>({ type: 'object', description: 'OpenAPI 3.1' });
const LiveFigures = Type.Unsafe<undefined>({ type: 'string', description: 'server-sent events named "figures"; `data` is the reply of /v1/figures as JSON' });
const Stream = Type.Unsafe<undefined>({ type: 'string', description: 'server-sent events; `data` is one event as JSON' });

export function addObserveRoutes(app: App, deps: ApiDeps, streams: EventStreams): void {
  addStateRoutes(app, deps);
  addCaptureRoute(app, deps);
  addHealthRoutes(app, deps);
  app.get('/v1/events', {
    schema: { summary: 'Server-sent events; resumes after Last-Event-ID', produces: ['text/event-stream'], querystring: EventsQuery, response: replies(Stream) },
  }, (request, reply) => streams.open(request, reply, request.query.group));
  addFigureRoutes(app, deps, streams);
}

function addFigureRoutes(app: App, deps: ApiDeps, streams: EventStreams): void {
  app.get('/v1/figures', { schema: { summary: 'Everything a watcher shows, now', querystring: FiguresQuery, response: replies(Figures) } }, (request) =>
    seenBy(callerOf(request), figuresOf(deps), request.query.group));

  app.get('/v1/figures/live', {
    schema: { summary: 'The same four times a second, as server-sent events with samples of the held bytes', produces: ['text/event-stream'], querystring: FiguresQuery, response: replies(LiveFigures) },
  }, (request, reply) => streams.openFigures(request, reply, request.query.group));
}

function must(deps: ApiDeps, group: string): GroupState {
  const state = deps.control.get(group);
  if (state === undefined) throw new Refused('no_such_group', `there is no group "${group}"; create it with \`sluice group apply\` or PUT /v1/groups/${group}`);
  return state;
}

function addStateRoutes(app: App, deps: ApiDeps): void {
  app.get('/v1/groups', { schema: { summary: 'All groups', querystring: NoQuery, response: replies(GroupList) } }, (request) =>
    deps.control.list().filter(({ spec }) => may(callerOf(request), 'observe', spec.group)).map((state) => groupView(state, deps.control.counters(state.spec.group), deps.control.hosts(state.spec.group))));

  app.get('/v1/groups/:group', { schema: { summary: 'One group', params: GroupParams, querystring: NoQuery, response: replies(GroupView) } }, ({ params }) =>
    groupView(must(deps, params.group), deps.control.counters(params.group), deps.control.hosts(params.group)));

  app.get('/v1/groups/:group/held', {
    schema: { summary: 'What is held, by epoch', params: GroupParams, querystring: NoQuery, response: replies(HeldView) },
  }, async ({ params }) => {
    must(deps, params.group);
    const epochs = await deps.control.held(params.group);
    return heldView(must(deps, params.group), epochs);
  });
}

function addCaptureRoute(app: App, deps: ApiDeps): void {
  app.get('/v1/groups/:group/held.pcapng', {
    schema: { summary: 'The held frames as a capture', produces: ['application/x-pcapng'], params: GroupParams, querystring: DumpQuery, response: replies(Capture) },
  }, async ({ params, query }, reply) => {
    must(deps, params.group);
    const pieces = await begun(deps.control.dump(params.group, query.bytesMax ?? DUMP_BYTES_MAX));
    const nowNs = (): bigint => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
    const capture = heldCapture(deps.control.nics(params.group), pieces, nowNs, `sluiced ${deps.version}`);
    return reply
      .header('content-disposition', `attachment; filename="${params.group}-held.pcapng"`)
      .type('application/x-pcapng')
      .send(Readable.from(capture, { objectMode: false }));
  });
}

/** With the first piece in hand: what fails from the start can still be refused. */
async function begun<T>(pieces: AsyncIterable<T>): Promise<AsyncIterable<T>> {
  const all = pieces[Symbol.asyncIterator]();
  const first = await all.next();
  let next: Promise<IteratorResult<T>> | undefined = Promise.resolve(first);
  const rest: AsyncIterator<T> = {
    next: () => {
      const now = next ?? all.next();
      next = undefined;
      return now;
    },
    return: async () => {
      await all.return?.();
      return { done: true, value: undefined };
    },
  };
  return { [Symbol.asyncIterator]: () => rest };
}

function addHealthRoutes(app: App, deps: ApiDeps): void {
  app.get('/healthz', { schema: { summary: 'The daemon answers', querystring: NoQuery, response: replies(Health) } }, () => ({ live: true }));

  app.get('/readyz', {
    schema: { summary: 'Every port attached and the journal writable', querystring: NoQuery, response: { 200: Readiness, 503: Readiness, '4xx': Refusal } },
  }, (request, reply) => {
    const missing = [...deps.health.missing()];
    void reply.code(missing.length === 0 ? 200 : 503);
    // The sentences name ports of every group.
    return { ready: missing.length === 0, missing: may(callerOf(request), 'observe', undefined) ? missing : [] };
  });

  app.get('/metrics', { schema: { summary: 'Prometheus metrics', produces: ['text/plain'], querystring: NoQuery, response: replies(Exposition) } }, async (_request, reply) =>
    reply.type(deps.metrics.registry.contentType).send(await deps.metrics.registry.metrics()));

  let document: string | undefined; // made once: it costs as much as many commands
  app.get('/openapi.json', { schema: { summary: 'This document', querystring: NoQuery, response: replies(Document) } }, (_request, reply) => {
    void reply.type('application/json');
    document ??= JSON.stringify(app.swagger());
    return document;
  });
}
