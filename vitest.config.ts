import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** The runner by itself leaves one core idle, which is half of two. */
const cpus = availableParallelism();
const outside = { setupFiles: ['./test/support/abandon.ts'], testTimeout: 120_000, hookTimeout: 60_000 };
const inTurn = { ...outside, fileParallelism: false, maxWorkers: 1 };
/** What judges speed, or waits for what a busy neighbour would put off: each by itself, after the others. */
const alone = ['speed', 'lanes', 'lanes-gate', 'longrun'].map((name) => `test/host/${name}.test.ts`);

/**
 * Kinds of tests, one after the other. `unit` needs nothing. `host` builds network namespaces, loads kernel
 * programs and starts daemons, so it needs root; its files mostly wait (for epochs, leases, guests that
 * boot), so two run at a time, each with names of its own. `alone` are those whose measure is the machine.
 * `callers` also needs other people's programs (NetworkManager, Prometheus …) and is `make test-callers`,
 * not `make test`.
 */
export default defineConfig({
  test: {
    pool: 'forks',
    reporters: ['default', './test/support/plain-reporter.ts'],
    projects: [
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 60_000, maxWorkers: cpus, sequence: { groupOrder: 0 } } },
      { extends: true, test: { name: 'host', include: ['test/host/**/*.test.ts'], exclude: alone, ...outside, maxWorkers: 2, sequence: { groupOrder: 1 } } },
      { extends: true, test: { name: 'alone', include: alone, ...inTurn, sequence: { groupOrder: 2 } } },
      { extends: true, test: { name: 'callers', include: ['test/callers/**/*.test.ts'], ...inTurn, sequence: { groupOrder: 3 } } },
    ],
  },
});
