import { once } from 'node:events';
import { connect } from 'node:net';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { CALL_MS, EtcdGrpc } from '../../proxy/edge/etcd-grpc.ts';
import { RANGE } from '../../proxy/edge/etcd-messages.ts';

/**
 * Answers each call after `afterMs` with revision 7 in its header, or with `refusal`, as gRPC does; in a
 * thread of its own: this one stands still meanwhile.
 */
const SERVER = `
  const { parentPort, workerData } = require('node:worker_threads');
  const server = require('node:http2').createServer();
  server.on('stream', (stream, headers) => {
    parentPort.postMessage('asked');
    stream.on('error', () => undefined);
    setTimeout(() => {
      if (stream.destroyed) return;
      if (workerData.status !== 200) return stream.respond({ ':status': workerData.status }, { endStream: true });
      if (workerData.refusal !== undefined) return stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '14', 'grpc-message': workerData.refusal }, { endStream: true });
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      for (const byte of workerData.answer) stream.write(Buffer.from([byte]));
      stream.end();
    }, workerData.afterMs);
  });
  server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));
`;
/** RangeResponse { header: { revision: 7 } }, and its length before it. */
const ANSWER = [0, 0, 0, 0, 4, 0x0a, 2, 0x18, 7];

interface Served {
  readonly afterMs?: number;
  readonly status?: number;
  readonly refusal?: string;
  readonly answer?: readonly number[];
}
async function served(as: Served, run: (etcd: EtcdGrpc, asked: () => Promise<unknown>) => Promise<void>): Promise<void> {
  const worker = new Worker(SERVER, { eval: true, workerData: { afterMs: 0, status: 200, answer: ANSWER, ...as } });
  const [port] = await once(worker, 'message') as [number];
  const etcd = new EtcdGrpc({ endpoints: [`http://127.0.0.1:${port}`], tls: undefined });
  try {
    await run(etcd, () => once(worker, 'message'));
  } finally {
    etcd.close();
    await worker.terminate();
  }
}
const standStill = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

test('an answer that came while this process stood still beyond the deadline is no late answer', async () => {
  await served({ afterMs: 100 }, async (etcd, asked) => {
    const arrived = asked();
    const answer = etcd.call(RANGE, { key: 'a' }, 2000);
    await arrived; // the request is there, its answer comes in a moment
    standStill(2500);
    expect(await answer).toMatchObject({ header: { revision: 7 } });
  });
});

test('an answer that does not come is given up at the deadline, in one sentence', async () => {
  await served({ afterMs: 600_000 }, async (etcd) => {
    await expect(etcd.call(RANGE, { key: 'a' }, 100)).rejects.toMatchObject({ code: 'ledger_down', message: expect.stringMatching(/did not do it: no answer within 100 ms$/) as string });
  });
});

test('an answer in pieces is one answer; what is no etcd, or says no, is said in one sentence', async () => {
  await served({}, async (etcd) => {
    expect(await etcd.call(RANGE, { key: 'a' })).toMatchObject({ header: { revision: 7 }, kvs: [] });
  });
  await served({ refusal: 'etcdserver: 100% no leader' }, async (etcd) => {
    await expect(etcd.call(RANGE, { key: 'a' })).rejects.toMatchObject({ code: 'ledger_down', message: expect.stringMatching(/did not do it: etcdserver: 100% no leader$/) as string });
  });
  await served({ status: 404 }, async (etcd) => {
    await expect(etcd.call(RANGE, { key: 'a' })).rejects.toMatchObject({ message: expect.stringMatching(/it answered 404: is that an etcd\?$/) as string });
  });
  await served({ answer: [] }, async (etcd) => {
    await expect(etcd.call(RANGE, { key: 'a' })).rejects.toMatchObject({ message: expect.stringMatching(/it ended without an answer$/) as string });
  });
  await served({ answer: [0, 255, 0, 0, 0, 1] }, async (etcd) => {
    await expect(etcd.call(RANGE, { key: 'a' })).rejects.toMatchObject({ message: expect.stringMatching(/longer than it may be, or compressed$/) as string });
  });
});

test('a call that was late does not spoil the next: that has a connection of its own', async () => {
  await served({ afterMs: 200 }, async (etcd) => {
    const patient = etcd.call(RANGE, { key: 'a' }, 2000); // under way on the connection that becomes doubtful
    await expect(etcd.call(RANGE, { key: 'a' }, 40)).rejects.toMatchObject({ code: 'ledger_down' });
    expect(await etcd.call(RANGE, { key: 'a' }, 2000)).toMatchObject({ header: { revision: 7 } });
    expect(await patient).toMatchObject({ header: { revision: 7 } });
  });
});

test('nobody listens: said at once, and by its reason', async () => {
  const etcd = new EtcdGrpc({ endpoints: ['http://127.0.0.1:1'], tls: undefined });
  await expect(etcd.call(RANGE, { key: 'a' })).rejects.toMatchObject({ code: 'ledger_down', message: expect.stringMatching(/ECONNREFUSED/) as string });
  const watch = etcd.stream(RANGE, { key: 'a' }, new AbortController().signal);
  await expect(watch.next()).rejects.toMatchObject({ message: expect.stringMatching(/ECONNREFUSED/) as string });
  etcd.close();
});

/** A connection that was given up is gone by then; an error in it that nobody hears would end the process. */
const DOUBTED_MS = 3 * CALL_MS;

/** Listens, and accepts nobody: what comes when two wait already is not even connected. */
const DEAF = `
  const { parentPort } = require('node:worker_threads');
  const server = require('node:net').createServer();
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
    parentPort.postMessage(server.address().port);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  });
`;

test('a peer that does not even connect is given up at the same deadline', async () => {
  const worker = new Worker(DEAF, { eval: true });
  const [port] = await once(worker, 'message') as [number];
  const waiting = Array.from({ length: 8 }, () => connect(port, '127.0.0.1').on('error', () => undefined));
  const etcd = new EtcdGrpc({ endpoints: [`http://127.0.0.1:${port}`], tls: undefined });
  try {
    await Promise.all(waiting.slice(0, 2).map((socket) => once(socket, 'connect')));
    await expect(etcd.call(RANGE, { key: 'a' }, 100)).rejects.toMatchObject({ code: 'ledger_down', message: expect.stringMatching(/did not do it: no answer within 100 ms$/) as string });
    await new Promise((resolve) => setTimeout(resolve, DOUBTED_MS)); // what ends with its connection now, nobody waits for
  } finally {
    for (const socket of waiting) socket.destroy();
    etcd.close();
    await worker.terminate();
  }
});

/** Answers the handshake of TCP and nothing else, as a peer that is stopped; says how many connections it has. */
const STILL = `
  const { parentPort } = require('node:worker_threads');
  let open = 0;
  const server = require('node:net').createServer({ pauseOnConnect: true }, (socket) => {
    open += 1;
    socket.on('error', () => undefined);
    socket.on('close', () => (open -= 1));
    setTimeout(() => socket.resume(), 1500).unref();
  });
  server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));
  parentPort.on('message', () => parentPort.postMessage(open));
`;

test('a peer that answers nothing: connections that are given up are closed', async () => {
  const worker = new Worker(STILL, { eval: true });
  const [port] = await once(worker, 'message') as [number];
  const etcd = new EtcdGrpc({ endpoints: [`http://127.0.0.1:${port}`], tls: undefined });
  try {
    for (let i = 0; i < 5; i++) await expect(etcd.call(RANGE, { key: 'a' }, 40)).rejects.toMatchObject({ code: 'ledger_down' });
    await new Promise((resolve) => setTimeout(resolve, 2 * DOUBTED_MS)); // it reads again by then, and sees the ends
    worker.postMessage('how many');
    expect(await once(worker, 'message')).toEqual([0]);
  } finally {
    etcd.close();
    await worker.terminate();
  }
});

test('ended while it connects, by whoever and whenever: one refusal, and nothing after it', async () => {
  await served({}, async (etcd) => {
    const ending = new AbortController();
    const watch = etcd.stream(RANGE, { key: 'a' }, ending.signal).next();
    await Promise.resolve();
    ending.abort();
    await expect(watch).rejects.toMatchObject({ code: 'ledger_down' });
    const call = etcd.call(RANGE, { key: 'a' });
    etcd.close();
    await expect(call).rejects.toMatchObject({ code: 'ledger_down' });
    await expect(etcd.call(RANGE, { key: 'a' })).rejects.toMatchObject({ message: expect.stringMatching(/this daemon is ending$/) as string });
  });
});
