import { once } from 'node:events';
import { connect } from 'node:net';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { EtcdHttp } from '../../proxy/edge/etcd-http.ts';

/** Answers each request after `afterMs`, in a thread of its own: this one stands still meanwhile. */
const SERVER = `
  const { parentPort, workerData } = require('node:worker_threads');
  const server = require('node:http').createServer((request, response) => {
    parentPort.postMessage('asked');
    setTimeout(() => response.end('{"header":{"revision":"7"}}'), workerData.afterMs);
  });
  server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));
`;

async function served(afterMs: number, run: (http: EtcdHttp, asked: () => Promise<unknown>) => Promise<void>): Promise<void> {
  const worker = new Worker(SERVER, { eval: true, workerData: { afterMs } });
  const [port] = await once(worker, 'message') as [number];
  const http = new EtcdHttp({ endpoints: [`http://127.0.0.1:${port}`], tls: undefined });
  try {
    await run(http, () => once(worker, 'message'));
  } finally {
    await http.close();
    await worker.terminate();
  }
}
const standStill = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

test('an answer that came while this process stood still beyond the deadline is no late answer', async () => {
  await served(100, async (http, asked) => {
    const arrived = asked();
    const answer = http.call('/v3/kv/range', {}, 2000);
    await arrived; // the request is there, its answer comes in a moment
    standStill(2500);
    expect(await answer).toEqual({ header: { revision: '7' } });
  });
});

test('an answer that does not come is given up at the deadline, in one sentence', async () => {
  await served(600_000, async (http) => {
    await expect(http.call('/v3/kv/range', {}, 100)).rejects.toMatchObject({ code: 'ledger_down', message: expect.stringMatching(/did not do it: no answer within 100 ms$/) as string });
  });
});

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
  const http = new EtcdHttp({ endpoints: [`http://127.0.0.1:${port}`], tls: undefined });
  try {
    await Promise.all(waiting.slice(0, 2).map((socket) => once(socket, 'connect')));
    await expect(http.call('/v3/kv/range', {}, 100)).rejects.toMatchObject({ code: 'ledger_down', message: expect.stringMatching(/did not do it: no answer within 100 ms$/) as string });
  } finally {
    for (const socket of waiting) socket.destroy();
    await http.close();
    await worker.terminate();
  }
});
