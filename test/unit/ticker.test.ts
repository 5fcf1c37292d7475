import { afterEach, describe, expect, test } from 'vitest';
import { Refused, SluiceClient, Unreachable } from '../../checkpoint-hooks/client.ts';
import { isTrouble } from '../../checkpoint-hooks/engines/session.ts';
import { Latency } from '../../checkpoint-hooks/engines/latency.ts';
import { Pace } from '../../checkpoint-hooks/engines/pace.ts';
import { Ticker } from '../../checkpoint-hooks/engines/ticker.ts';
import type { TickerOptions, TickerSummary } from '../../checkpoint-hooks/engines/ticker.ts';
import { Wakeup } from '../../checkpoint-hooks/engines/wakeup.ts';
import { EdgeError } from '../../proxy/ports.ts';
import { serve } from './cli-world.ts';
import type { Served } from './cli-world.ts';

const members = [{ name: 'front', port: 'tap0', mac: '02:00:00:00:00:01' }, { name: 'store', port: 'tap1', mac: '02:00:00:00:00:02' }];
const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

interface Rig {
  readonly served: Served;
  readonly client: SluiceClient;
  readonly stop: AbortController;
  readonly start: (options?: Partial<TickerOptions>) => Promise<TickerSummary>;
  readonly now: () => TickerSummary;
}

async function rig(commit: 'explicit' | 'acks' = 'explicit'): Promise<Rig> {
  const served = await serve();
  const client = new SluiceClient({ socket: served.socket });
  cleanups.push(() => served.remove(), () => client.close());
  await client.apply('web', { members, commit });
  await client.protect('web');
  const stop = new AbortController();
  let ticker: Ticker | undefined;
  const start = (options: Partial<TickerOptions> = {}): Promise<TickerSummary> => {
    ticker = new Ticker(client, { group: 'web', intervalMs: 2, commitDelayMs: 1, onOutput: false, epochs: undefined, dropEvery: 0, follow: false, unreachableMaxMs: 5000, ...options });
    return ticker.run(stop.signal);
  };
  const now = (): TickerSummary => {
    if (ticker === undefined) throw new Error('not started');
    return ticker.summary();
  };
  return { served, client, stop, start, now };
}
const until = async (what: () => boolean): Promise<void> => {
  while (!what()) await new Promise((done) => setTimeout(done, 2));
};
const webOf = (served: Served): { sealed: number; committed: number; generation: number } => served.control.get('web') ?? { sealed: -1, committed: -1, generation: -1 };

/** The ticker goes on while we ask: what was committed a moment ago may be too old. Ask again then. */
async function insist(command: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await command();
      return;
    } catch (error) {
      if (!(error instanceof Refused) || error.code !== 'epoch_out_of_order') throw error;
    }
  }
}

describe('ticker', () => {
  test('cuts as often as told and commits every epoch before it ends', async () => {
    const { served, start } = await rig();
    const summary = await start({ epochs: 30 });
    expect(summary).toMatchObject({ group: 'web', epochs: 30, open: 31, committed: 30, inFlight: 0, resyncs: 0, droppedAcks: 0 });
    expect(webOf(served)).toMatchObject({ sealed: 30, committed: 30 });
    expect(summary.cutMs.count).toBe(30);
    expect(summary.commits).toBeGreaterThan(0);
    expect(summary.cutMs.p99).toBeGreaterThanOrEqual(summary.cutMs.p50);
  });

  test('acks where the group commits by acks', async () => {
    const { served, start } = await rig('acks');
    await start({ epochs: 10 });
    expect(webOf(served)).toMatchObject({ sealed: 10, committed: 10 });
  });

  test('several epochs are in flight when the delay is longer than the interval', async () => {
    const { served, start } = await rig();
    const counts: number[] = [];
    const leave = served.deps.events.subscribe(({ event }) => {
      if (event.type === 'cut') counts.push(webOf(served).sealed - webOf(served).committed);
    });
    const summary = await start({ epochs: 40, intervalMs: 2, commitDelayMs: 40 });
    leave();
    expect(Math.max(...counts)).toBeGreaterThan(3);
    expect(summary).toMatchObject({ committed: 40, inFlight: 0 });
  });

  test('a signal ends it after what is in flight was committed', async () => {
    const { served, stop, start } = await rig();
    const running = start({ commitDelayMs: 30 });
    await until(() => webOf(served).sealed >= 5);
    stop.abort();
    const summary = await running;
    expect(summary.epochs).toBeGreaterThanOrEqual(5);
    expect(webOf(served).committed).toBe(webOf(served).sealed);
    expect(summary.inFlight).toBe(0);
  });

  test('left out acks are made good by later ones, and the last is never left out', async () => {
    const { served, start } = await rig();
    const summary = await start({ epochs: 20, dropEvery: 2 });
    expect(summary.droppedAcks).toBeGreaterThan(0);
    expect(webOf(served)).toMatchObject({ sealed: 20, committed: 20 });
  });

  test('a rollback by someone else: it follows and goes on from there', async () => {
    const { served, client, stop, start } = await rig();
    const running = start({ commitDelayMs: 10 });
    await until(() => webOf(served).committed >= 3);
    const before = webOf(served);
    await insist(() => client.rollback('web', { generation: 1, epoch: webOf(served).committed }));
    await until(() => webOf(served).committed >= before.committed + 3);
    stop.abort();
    const summary = await running;
    expect(summary.resyncs).toBeGreaterThan(0);
    expect(webOf(served).committed).toBe(webOf(served).sealed);
  });

  test('a takeover ends it, with the reason; told to follow, it goes on in the new generation', async () => {
    const fenced = await rig();
    const ended = fenced.start().catch((error: unknown) => error);
    await until(() => webOf(fenced.served).committed >= 2);
    await insist(() => fenced.client.takeover('web', { generation: 7, epoch: webOf(fenced.served).committed }));
    expect(await ended).toMatchObject({ name: 'Refused', code: 'fenced' });

    const follows = await rig();
    const running = follows.start({ follow: true });
    await until(() => webOf(follows.served).committed >= 2);
    await insist(() => follows.client.takeover('web', { generation: 7, epoch: webOf(follows.served).committed }));
    const base = webOf(follows.served).committed;
    await until(() => webOf(follows.served).committed >= base + 3);
    follows.stop.abort();
    expect(await running).toMatchObject({ generation: 7 });
  });

  test('a daemon that is restarted is waited for, and nothing is left uncommitted', async () => {
    const { served, stop, start, now } = await rig();
    const running = start({ commitDelayMs: 5 });
    await until(() => webOf(served).committed >= 3);
    await served.stop();
    const before = webOf(served).sealed;
    await until(() => now().resyncs > 0);
    await served.start();
    await until(() => webOf(served).committed > before + 2);
    stop.abort();
    const summary = await running;
    expect(summary.resyncs).toBeGreaterThan(0);
    expect(webOf(served).committed).toBe(webOf(served).sealed);
  });

  test('a 503 of any making is waited out; other refusals without our code are not', () => {
    const bare = (status: number): Refused => new Refused(status, { code: 'unexpected', message: 'Service Unavailable' });
    expect([503, 502, 400].map((status) => isTrouble(bare(status)))).toEqual([true, false, false]);
  });

  test('a daemon that stays away ends it as unreachable', async () => {
    const { served, start } = await rig();
    const ended = start({ unreachableMaxMs: 100 }).catch((error: unknown) => error);
    await until(() => webOf(served).committed >= 1);
    await served.stop();
    expect(await ended).toBeInstanceOf(Unreachable);
  });

  test('a full disk is waited out', async () => {
    const { served, stop, start } = await rig();
    const running = start();
    await until(() => webOf(served).committed >= 2);
    served.control.failure = new EdgeError('journal_failed', 'no space left', 'free some');
    const before = webOf(served).sealed;
    await new Promise((done) => setTimeout(done, 30));
    expect(webOf(served).sealed).toBe(before);
    served.control.failure = undefined;
    await until(() => webOf(served).committed >= before + 2);
    stop.abort();
    await running;
  });

  test('an unprotected group is refused with the way to protect it', async () => {
    const { client, start } = await rig();
    await client.unprotect('web', { generation: 1, held: 'discard' });
    const refused = await start().catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(Refused);
    expect(refused).toMatchObject({ code: 'not_protected', message: expect.stringContaining('sluice protect web') as string });
  });
});

describe('cutting on output', () => {
  test('one cut for each epoch that has output, none without', async () => {
    const { served, stop, start } = await rig();
    const running = start({ onOutput: true, intervalMs: undefined });
    await until(() => served.deps.events.subscribers > 0);
    await until(() => webOf(served).committed >= 1); // the cut that makes good what nobody heard
    for (let round = 0; round < 5; round += 1) {
      const { sealed } = webOf(served);
      served.deps.events.publish({ type: 'output-pending', atMs: 0, group: 'web', epoch: sealed + 1 });
      served.deps.events.publish({ type: 'output-pending', atMs: 0, group: 'web', epoch: sealed });
      await until(() => webOf(served).committed === sealed + 1);
    }
    await new Promise((done) => setTimeout(done, 20));
    stop.abort();
    expect(await running).toMatchObject({ epochs: 6, committed: 6 });
  });

  test('with an interval as well, that is the longest epoch', async () => {
    const { served, stop, start } = await rig();
    const running = start({ onOutput: true, intervalMs: 5 });
    await until(() => webOf(served).committed >= 4);
    stop.abort();
    await running;
  });
});

describe('parts', () => {
  test('the pace has no drift, and misses beats instead of making up for them', () => {
    const pace = new Pace(1000, 25);
    expect(pace.nextMs(1000)).toBe(1025);
    expect(pace.nextMs(1025.4)).toBe(1050);
    expect(pace.nextMs(1050)).toBe(1075);
    expect(pace.missed).toBe(0);
    expect(pace.nextMs(1160)).toBe(1175);
    expect(pace.missed).toBe(3);
    expect(pace.nextMs(1175)).toBe(1200);
    expect(() => new Pace(0, 0)).toThrow(RangeError);
  });

  test('a wakeup that comes before the wait is not lost, and is used once', async () => {
    const wakeup = new Wakeup();
    wakeup.wake();
    wakeup.wake();
    await wakeup.wait(Infinity);
    let woken = false;
    const waiting = wakeup.wait(Infinity).then(() => (woken = true));
    await Promise.resolve();
    expect(woken).toBe(false);
    wakeup.wake();
    await waiting;
    await wakeup.wait(1);
  });

  test('quantiles are exact within the bound, and of the newest beyond it', () => {
    const latency = new Latency(100);
    for (let i = 1; i <= 100; i += 1) latency.add(i);
    expect(latency.summary()).toEqual({ count: 100, p50: 51, p99: 100, max: 100 });
    for (let i = 0; i < 100; i += 1) latency.add(7);
    expect(latency.summary()).toEqual({ count: 200, p50: 7, p99: 7, max: 100 });
    expect(new Latency().summary()).toEqual({ count: 0, p50: 0, p99: 0, max: 0 });
  });
});
