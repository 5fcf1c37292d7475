/** Orders between two real threads: none is lost, reordered or slept over. */
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { ADVANCE, ASLEEP, EXPECTANT, Order, Orders, RECEIVER, RELEASE } from '../../proxy/plane/orders.ts';

const ORDERS = 200_000;
/** A reader that nobody wakes for this long has slept over an order. */
const SLEPT_OVER_MS = 5000;

/**
 * The reader, as the hold loop does it, with a word in the place of the eventfd: it checks that
 * orders come as they were given, sleeps when it may, and tells the last value that it has seen.
 */
const READER = `
  import { parentPort, workerData } from 'node:worker_threads';
  const { ASLEEP, EXPECTANT, Order, Orders } = await import(workerData.code);
  const orders = new Orders(workerData.memory);
  const order = new Order();
  const cells = new Int32Array(workerData.cells); // 0 the bell, 1 last value seen, 2 sleeps
  let next = 0;
  while (!orders.stopped) {
    const bell = Atomics.load(cells, 0);
    while (orders.pop(order)) {
      if (order.value !== next || order.colour !== (next * 7) % 1000 - 500) throw new Error('order ' + next + ' came as ' + order.value);
      next += 1;
      Atomics.store(cells, 1, next);
    }
    if (!orders.maySleep(next % 3 === 0 ? EXPECTANT : ASLEEP)) continue;
    Atomics.add(cells, 2, 1);
    const woken = Atomics.wait(cells, 0, bell, ${SLEPT_OVER_MS});
    orders.awake();
    if (woken === 'timed-out') throw new Error('nobody rang after order ' + next);
  }
  parentPort.postMessage(next);
`;

function reader(memory: SharedArrayBuffer, cells: SharedArrayBuffer): Worker {
  const code = new URL('../../dist/proxy/plane/orders.js', import.meta.url).href;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(READER)}`), { workerData: { code, memory, cells }, execArgv: [] });
}

describe('orders', () => {
  it('all arrive in their order, and the reader is woken for each that matters', async () => {
    const orders = new Orders();
    const cells = new Int32Array(new SharedArrayBuffer(16));
    const worker = reader(orders.memory, cells.buffer);
    const ended = new Promise<number>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    let failed = false;
    ended.catch(() => { failed = true; });
    const ring = (): void => {
      Atomics.add(cells, 0, 1);
      Atomics.notify(cells, 0);
    };
    for (let i = 0; i < ORDERS; i++) {
      const lazy = i % 5 !== 0;
      expect(orders.push(lazy ? ADVANCE : RELEASE, 1, ((i * 7) % 1000) - 500, 0, i, ring)).toBe(true);
      if (orders.wakes(lazy)) ring();
      if (i % 50 !== 0) continue; // now and then until it has all been read: the reader goes to sleep
      for (let turns = 0; Atomics.load(cells, 1) <= i && !failed; turns++) await new Promise((resolve) => setImmediate(resolve));
      if (failed) break;
    }
    for (; Atomics.load(cells, 1) < ORDERS && !failed; ) {
      if (orders.wakes(false)) ring();
      await new Promise((resolve) => setImmediate(resolve));
    }
    orders.stop();
    ring();
    expect(await ended).toBe(ORDERS);
    expect(Atomics.load(cells, 2)).toBeGreaterThan(100);
  });

  it('a lazy order leaves a sleeper alone, unless it is expectant or the memory fills up', () => {
    const orders = new Orders();
    const silent = (): void => undefined;
    expect(orders.maySleep(ASLEEP)).toBe(true);
    expect(orders.push(ADVANCE, 0, 1, 0, 1, silent) && orders.wakes(true)).toBe(false);
    expect(orders.push(RELEASE, 0, 1, 0, 1, silent) && orders.wakes(false)).toBe(true);
    expect(orders.wakes(false), 'it is awake already').toBe(false);
    expect(orders.maySleep(ASLEEP), 'orders are there').toBe(false);
    const order = new Order();
    while (orders.pop(order));
    expect(orders.maySleep(EXPECTANT)).toBe(true);
    expect(orders.push(RECEIVER, 0, 1, 9, 0, silent) && orders.wakes(true)).toBe(true);
    while (orders.pop(order));
    expect([order.kind, order.nic]).toEqual([RECEIVER, 9]);
    expect(orders.maySleep(ASLEEP)).toBe(true);
    let pushed = 0;
    while (!(orders.push(ADVANCE, 0, 1, 0, 1, silent) && orders.wakes(true))) pushed += 1;
    expect(pushed).toBeGreaterThan(1000);
  });

  it('a full memory refuses when nobody reads', () => {
    const orders = new Orders();
    let pushed = 0;
    while (orders.push(ADVANCE, 0, 1, 0, 1, () => undefined)) pushed += 1;
    expect(pushed).toBe(8192);
  }, 20_000);
});
