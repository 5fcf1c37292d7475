import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../../bench/bed/commands.ts';
import { Etcd } from '../../bench/bed/etcd.ts';
import { quantile } from '../../bench/bed/stats.ts';
import { committedOf, decideHead } from '../../proxy/core/hosts.ts';
import { epoch } from '../../proxy/core/types.ts';
import type { Head, LedgerView } from '../../proxy/core/types.ts';
import { EtcdLedger } from '../../proxy/edge/etcd-ledger.ts';
import { specFor } from '../sim/hosts-world.ts';
import { UNPRIVILEGED } from './privilege.ts';

/**
 * The ledger alone under many groups: three hosts' clients on one real etcd, no daemons and no frames.
 * Each host acks each group's next epoch when it is due and it has seen the one before committed.
 * What the whole product carries on the machine is the bench's to say ("many groups across hosts").
 */
const HOSTS = ['h1', 'h2', 'h3'];
const GROUPS = 200;
const EPOCHS_A_SECOND = 20;
const INTERVAL_MS = 1000 / EPOCHS_A_SECOND;
const EPOCHS = 60;
/** Of which so many are begun before anything is measured. */
const WARM_UP = 20;
/** Acks that share an entry of etcd's log, at least: a busy client waits for its answers and gathers. */
const SHARED_MIN = 4;

const directory = mkdtempSync(join(tmpdir(), 'sl-etcd-load-'));
const etcd = new Etcd({ directory, port: 51_000 + (process.pid % 4000) * 2, nodes: 1 });
const names = Array.from({ length: GROUPS }, (_, i) => `g${i}`);

class Driven {
  readonly ledger: EtcdLedger;
  readonly delaysMs: number[] = [];
  readonly #heads = new Map<string, Head>();
  readonly #groups = new Map(names.map((name) => [name, { asked: 0, askedMs: 0, committed: 0, dueMs: 0, timer: undefined as NodeJS.Timeout | undefined }]));
  #isRunning = false;

  constructor(self: string) {
    this.ledger = new EtcdLedger({ self, owner: self, prefix: '/load/', endpoints: etcd.endpoints, tls: undefined });
    this.ledger.onView((name, view) => this.#see(name, view));
  }
  get known(): number {
    return this.#heads.size;
  }
  get least(): number {
    return Math.min(...[...this.#groups.values()].map(({ committed }) => committed));
  }
  get committed(): number {
    return [...this.#groups.values()].reduce((sum, { committed }) => sum + committed, 0);
  }

  run(beginMs: number): void {
    this.#isRunning = true;
    for (const [i, name] of names.entries()) {
      const group = this.#groups.get(name);
      if (group !== undefined) group.dueMs = beginMs + (i * INTERVAL_MS) / GROUPS;
      this.#next(name);
    }
  }
  close(): Promise<void> {
    this.#isRunning = false;
    for (const { timer } of this.#groups.values()) clearTimeout(timer);
    return this.ledger.close();
  }

  #see(name: string, view: LedgerView): void {
    const group = this.#groups.get(name);
    if (group === undefined || view.head?.phase !== 'protected') return;
    this.#heads.set(name, view.head);
    const committed = committedOf(view.head, view);
    if (committed <= group.committed) return;
    group.committed = committed;
    if (committed > WARM_UP && committed === group.asked) this.delaysMs.push(performance.now() - group.askedMs);
    this.#next(name);
  }
  #next(name: string): void {
    const group = this.#groups.get(name);
    const head = this.#heads.get(name);
    if (!this.#isRunning || group === undefined || head === undefined || group.timer !== undefined || group.committed < group.asked || group.asked === EPOCHS) return;
    group.timer = setTimeout(() => {
      const nowMs = performance.now();
      Object.assign(group, { timer: undefined, asked: group.asked + 1, askedMs: nowMs, dueMs: Math.max(group.dueMs + INTERVAL_MS, nowMs) });
      this.ledger.publish(name, { generation: head.generation, life: head.life, epoch: epoch(group.asked) });
    }, Math.max(0, group.dueMs - performance.now()));
  }
}

async function protect({ ledger }: Driven, name: string): Promise<void> {
  for (const command of [{ kind: 'apply', spec: { ...specFor(HOSTS), group: name } }, { kind: 'protect' }] as const) {
    const { swap } = decideHead(await ledger.read(name), command, { life: 'a1', known: undefined });
    if (swap === undefined || !(await ledger.swap(name, swap))) throw new Error(`${name} could not be protected`);
  }
}

beforeAll(async () => {
  if (!UNPRIVILEGED) await etcd.start();
}, 60_000);
afterAll(async () => {
  await etcd.close();
  rmSync(directory, { recursive: true, force: true });
});

test.skipIf(UNPRIVILEGED)(`${GROUPS} groups on three hosts, ${EPOCHS_A_SECOND} epochs a second wanted of each: acks share transactions, every group goes on`, async () => {
  const hosts = HOSTS.map((name) => new Driven(name));
  const [first] = hosts;
  if (first === undefined) throw new Error('three hosts');
  try {
    for (const { ledger } of hosts) await ledger.start();
    for (const name of names) await protect(first, name);
    await until('all hosts know all groups', () => hosts.every(({ known }) => known === GROUPS), 60_000);
    for (const host of hosts) host.run(performance.now());
    await until('they are warm', () => first.committed >= WARM_UP * GROUPS, 120_000);
    const before = { atMs: performance.now(), entries: await etcd.entries(), etcdUs: etcd.cpuUs(), committed: first.committed, cpu: process.cpuUsage() };
    await until('every group has committed all its epochs', () => hosts.every(({ least }) => least === EPOCHS), 240_000);
    const seconds = (performance.now() - before.atMs) / 1e3;
    const epochs = first.committed - before.committed;
    const entries = (await etcd.entries()) - before.entries;
    const { user, system } = process.cpuUsage(before.cpu);
    const { delaysMs } = first;
    console.log(`${(epochs / seconds).toFixed(0)} epochs/s committed of ${GROUPS * EPOCHS_A_SECOND}, ack to commit p50 ${quantile(delaysMs, 0.5).toFixed(0)} ms, p99 ${quantile(delaysMs, 0.99).toFixed(0)} ms; `
      + `etcd ${(entries / seconds).toFixed(0)} log entries/s for ${((epochs * HOSTS.length) / seconds).toFixed(0)} acks/s, ${((etcd.cpuUs() - before.etcdUs) / 1e6 / seconds).toFixed(2)} cores; three clients ${((user + system) / 1e6 / seconds).toFixed(2)} cores`);
    expect((epochs * HOSTS.length) / entries, 'acks an entry').toBeGreaterThan(SHARED_MIN);
  } finally {
    for (const host of hosts) await host.close();
  }
}, 480_000);
