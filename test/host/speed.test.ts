/**
 * The quick figures can be taken, every one of them, and none is off by an order of magnitude. The
 * floors themselves are `make bench-quick`'s: on a machine that others share, a floor in a test would
 * say more about the neighbours than about the gate.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { plan } from '../../bench/bench.ts';
import { figuresOf } from '../../bench/figures.ts';
import { measure } from '../../bench/runner.ts';
import { UNPRIVILEGED } from './privilege.ts';

const RATIO_MIN = 0.02;

describe.skipIf(UNPRIVILEGED !== undefined)('speed', () => {
  const { scenarios } = plan(['--quick']);
  it.each(scenarios.map((scenario) => ({ scenario, name: scenario.name })))('$name can be measured', { timeout: 120_000, retry: 1 }, async ({ scenario }) => {
    const out = mkdtempSync(join(tmpdir(), 'sl-bench-'));
    try {
      const result = await measure(scenario, { laps: 1, seconds: 1, out, say: (line) => console.log(line) });
      expect(result.failed).toBeUndefined();
      if (result.skipped !== undefined) return; // a peer's own package is not there: the bench says so
      for (const { name } of scenario.variants) expect(Object.keys({ ...result.variants, ...result.missing })).toContain(name);
      for (const { name, value, ratio, by, lowerIsBetter } of figuresOf(scenario, result)) {
        expect(value, name).toBeGreaterThan(0);
        if (by === 'ratio' && !lowerIsBetter) expect(ratio, name).toBeGreaterThan(RATIO_MIN);
      }
    } finally {
      rmSync(out, { recursive: true, force: true });
    }
  });
});
