/**
 * The bench's machinery works on this machine: every tool of the quick table is run once beside the
 * plain bridge, every figure it promises is there, and the report is written. How good the figures
 * are is `make bench-quick`'s to judge: on a machine that others share, a floor in a test would say
 * more about the neighbours than about the gate.
 *
 * One scenario a tool, its shortest lap, without warm-up: the rest of the table differs in arguments.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { plan } from '../../bench/bench.ts';
import { ROOM, figuresOf, type Outcome } from '../../bench/figures.ts';
import { writeReport } from '../../bench/report/write.ts';
import { measure } from '../../bench/runner.ts';
import type { Scenario } from '../../bench/scenario.ts';
import { UNPRIVILEGED } from './privilege.ts';

const SECONDS = 0.3;
const ONE_A_TOOL = [
  '3-tier chain', 'intra-group TCP round trip', 'held TCP, committed at once', 'held 60-byte frames',
  'cut and commit through REST, back to back', 'commit to the wire, back to back',
];
/** Per-VM buffering is the slow one by nature, and only its own scenarios' baseline. */
const brief = (scenario: Scenario): Scenario => ({ ...scenario, warmUpLap: false, variants: scenario.variants.filter(({ name }) => name !== 'per-VM') });

describe.skipIf(UNPRIVILEGED !== undefined)('speed', () => {
  const scenarios = plan(['--quick']).scenarios.filter(({ name }) => ONE_A_TOOL.includes(name)).map(brief);
  const out = mkdtempSync(join(tmpdir(), 'sl-bench-'));
  const outcomes: Outcome[] = [];
  afterAll(() => rmSync(out, { recursive: true, force: true }));

  it('knows the scenarios it is about to run', () => {
    expect(scenarios.map(({ name }) => name).sort()).toEqual([...ONE_A_TOOL].sort());
  });

  it.each(scenarios.map((scenario) => ({ scenario, name: scenario.name })))('$name can be measured', { timeout: 120_000 }, async ({ scenario }) => {
    const result = await measure(scenario, { laps: 1, seconds: SECONDS, out, say: (line) => console.log(line) });
    expect(result.failed).toBeUndefined();
    if (result.skipped !== undefined) return; // a peer's own package is not there: the bench says so
    for (const { name } of scenario.variants) expect(Object.keys({ ...result.variants, ...result.missing })).toContain(name);
    for (const { name, value } of figuresOf(scenario, result)) expect(value, name).toBeGreaterThan(0);
    outcomes.push({ scenario, result });
  });

  it('writes its report', async () => {
    await writeReport(out, outcomes, { judged: new Set(), room: ROOM });
    const figures = JSON.parse(readFileSync(join(out, 'bench.json'), 'utf8')) as { scenario: string }[];
    expect(new Set(figures.map(({ scenario }) => scenario))).toEqual(new Set(outcomes.map(({ scenario }) => scenario.name)));
    for (const name of ['bench.html', 'bench.md', 'raw', 'results']) expect(existsSync(join(out, name)), name).toBe(true);
    expect(readFileSync(join(out, 'bench.html'), 'utf8')).toContain('<svg');
  });
});
