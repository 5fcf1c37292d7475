import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** The runner by itself leaves one core idle, which is half of two. */
const cpus = availableParallelism();
const inTurn = { setupFiles: ['./test/support/abandon.ts'], testTimeout: 120_000, hookTimeout: 60_000, fileParallelism: false, maxWorkers: 1 };

/**
 * Three kinds of tests. `unit` needs nothing and runs in parallel; `host` builds network
 * namespaces, loads kernel programs and starts daemons, so it needs root and runs one file at a
 * time: the machine's cores are shared with the traffic. `callers` also needs other people's programs
 * (NetworkManager, Prometheus …) and is `make test-callers`, not `make test`.
 */
export default defineConfig({
  test: {
    pool: 'forks',
    reporters: ['default', './test/support/plain-reporter.ts'],
    projects: [
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 60_000, maxWorkers: cpus } },
      { extends: true, test: { name: 'host', include: ['test/host/**/*.test.ts'], ...inTurn } },
      { extends: true, test: { name: 'callers', include: ['test/callers/**/*.test.ts'], ...inTurn } },
    ],
  },
});
