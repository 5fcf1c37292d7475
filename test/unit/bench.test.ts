/** The bench's arithmetic: medians, ratios and demands; the table's names; the report's page and block. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { plan } from '../../bench/bench.ts';
import { QUICK_ROOM, ROOM, figuresOf } from '../../bench/figures.ts';
import { charts } from '../../bench/report/charts.ts';
import { page } from '../../bench/report/page.ts';
import { withBlock } from '../../bench/report/write.ts';
import { faults, markdown, verdictText } from '../../bench/report/words.ts';
import { measure, slug } from '../../bench/runner.ts';
import { Unavailable, type Lap, type Scenario } from '../../bench/scenario.ts';
import { tcpBound } from '../../bench/scenarios/external.ts';
import { shares } from '../../bench/scenarios/beside.ts';
import { TABLE } from '../../bench/table.ts';

/** A scenario whose laps are told, and which writes down the order it was run in. */
function told(values: Readonly<Record<string, readonly number[]>>, quantity: Partial<Scenario['quantities'][number]> = {}): { scenario: Scenario; laps: Lap[]; closed: () => number } {
  const laps: Lap[] = [];
  let closed = 0;
  const scenario: Scenario = {
    name: 'told', section: 'external', topology: 't', arguments: 'a',
    variants: Object.keys(values).map((name) => ({ name })),
    quantities: [{ key: 'v', name: 'told', unit: 'ms', ...quantity }],
    open: () => Promise.resolve({
      lap: (lap: Lap) => {
        laps.push(lap);
        const value = lap.number === 0 ? -1 : values[lap.variant]?.[lap.number - 1];
        return value === undefined ? Promise.reject(new Unavailable('no such kernel')) : Promise.resolve({ values: { v: value }, series: { s: [value] } });
      },
      close: () => Promise.resolve(void closed++),
    }),
  };
  return { scenario, laps, closed: () => closed };
}

async function run(scenario: Scenario, laps = 3): ReturnType<typeof measure> {
  const out = mkdtempSync(join(tmpdir(), 'sl-bench-'));
  try {
    const result = await measure(scenario, { laps, seconds: 1, out, say: () => undefined });
    expect(JSON.parse(readFileSync(join(out, 'results', 'told.json'), 'utf8'))).toEqual(result);
    return result;
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

describe('runner', () => {
  it('warms up, then alternates the order, and keeps no warm-up', async () => {
    const { scenario, laps, closed } = told({ plain: [1, 2, 3], group: [4, 5, 6] });
    const result = await run(scenario);
    expect(laps.map(({ variant, number }) => `${number}${variant[0]}`)).toEqual(['0p', '0g', '1p', '1g', '2g', '2p', '3p', '3g']);
    expect(result.variants['plain']?.values['v']).toEqual([1, 2, 3]);
    expect(closed()).toBe(1);
  });

  it('leaves out a variant that can not be had, and says why', async () => {
    const { scenario } = told({ plain: [1], group: [] });
    const result = await run(scenario, 1);
    expect(result.missing).toEqual({ group: 'no such kernel' });
    expect(result.failed).toBeUndefined();
  });

  it('closes what stands when a lap fails', async () => {
    const { scenario, closed } = told({ plain: [1] });
    const broken: Scenario = { ...scenario, open: async (context) => ({ ...(await scenario.open(context)), lap: () => Promise.reject(new Error('boom')) }) };
    const result = await run(broken);
    expect(result.failed).toContain('boom');
    expect(closed()).toBe(1);
    const outcome = { scenario: { ...broken, note: 'read it so' }, result };
    expect(markdown([outcome, outcome], [], 'here').split('\n')).toEqual(expect.arrayContaining([expect.stringMatching(/^\| .* failed: .*boom.* FAILED \|$/)]));
    expect(markdown([outcome, outcome], [], 'here').match(/read it so/g)).toHaveLength(1);
  });
});

describe('figures', () => {
  it('judge a ratio, a speed-up and a value, each its own way round', async () => {
    const demands = [
      { variant: 'group', by: 'ratio', floor: 3 }, { variant: 'group', by: 'speed-up', against: 'per-VM', floor: 10, target: 30 }, { variant: 'group', by: 'value', floor: 1 },
    ] as const;
    const { scenario } = told({ plain: [1, 1, 1], 'per-VM': [40, 50, 60], group: [2, 2, 9] }, { lowerIsBetter: true, demands });
    const [perVm, ratio, speedUp, value] = figuresOf(scenario, await run(scenario)).sort((a, b) => a.variant === b.variant ? 0 : a.variant === 'per-VM' ? -1 : 1);
    expect(perVm).toMatchObject({ variant: 'per-VM', floor: null, met: null, ratio: 50 });
    expect(ratio).toMatchObject({ value: 2, baseline: 1, ratio: 2, met: true });
    expect(speedUp).toMatchObject({ baseline: 50, ratio: 20, met: true, targetMet: false });
    expect(value).toMatchObject({ value: 2, met: false });
  });

  it('compare each lap with its own neighbour: the machine may change its speed between laps', async () => {
    const { scenario } = told({ plain: [10, 30, 5], group: [9, 27, 4.5] }, { demands: [{ variant: 'group', by: 'ratio', floor: 0.85 }] });
    const figure = figuresOf(scenario, await run(scenario)).at(-1);
    expect(figure).toMatchObject({ value: 9, baseline: 10, ratio: 0.9, met: true });
    const drifting = told({ plain: [10, 20, 30], group: [30, 10, 15] }, { demands: [{ variant: 'group', by: 'ratio', floor: 0.6 }] });
    expect(figuresOf(drifting.scenario, await run(drifting.scenario)).at(-1)).toMatchObject({ value: 15, baseline: 20, ratio: 0.5, met: false });
  });

  it('takes more laps where the table says that noise is large, in a quick run one', async () => {
    for (const [laps, taken] of [[1, 1], [2, 3]] as const) {
      const { scenario } = told({ plain: [1, 2, 3], group: [1, 2, 3] });
      expect((await run({ ...scenario, lapsMin: 3 }, laps)).laps).toBe(taken);
    }
  });

  it('a floor that is missed by less than the room is said to be missed', async () => {
    const { scenario } = told({ plain: [10], group: [8] }, { demands: [{ variant: 'group', by: 'ratio', floor: 0.9 }] });
    const figure = figuresOf(scenario, await run(scenario, 1), 0.85).at(-1);
    expect(figure).toMatchObject({ met: true, floorMet: false });
    expect(figure === undefined ? '' : verdictText(figure)).toBe('missed, within the room for noise');
  });

  it('leave a quick bench more room before a miss', async () => {
    const { scenario } = told({ plain: [10], group: [6] }, { demands: [{ variant: 'group', by: 'ratio', floor: 0.9 }] });
    const result = await run(scenario, 1);
    expect([ROOM, QUICK_ROOM].map((room) => figuresOf(scenario, result, room).at(-1)?.met)).toEqual([false, true]);
  });

  it('name a miss and a failure, of the scenarios that were run', async () => {
    const { scenario } = told({ plain: [10], group: [5] }, { demands: [{ variant: 'group', by: 'ratio', floor: 0.9 }] });
    const result = await run(scenario, 1);
    const figures = figuresOf(scenario, result);
    expect(faults([{ scenario, result }], figures, new Set(['told']))).toEqual(['told: 0.5, floor >= 0.9']);
    expect(faults([{ scenario, result }], figures, new Set())).toEqual([]);
  });
});

describe('table', () => {
  it('has unique names of scenarios, files and figures, and demands of variants that exist', () => {
    const unique = (names: readonly string[]): void => expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
    unique(TABLE.map(({ name }) => slug(name)));
    unique(TABLE.flatMap(({ quantities }) => quantities.map(({ name }) => name)));
    for (const { name, variants, quantities } of TABLE) {
      const known = new Set(variants.map((variant) => variant.name));
      for (const demand of quantities.flatMap(({ demands }) => demands ?? [])) {
        expect(known.has(demand.variant) && (demand.against === undefined || known.has(demand.against)), `${name}: ${demand.variant}`).toBe(true);
      }
    }
  });

  it('is cut down by --only and --quick, and refuses nonsense', () => {
    expect(plan(['--only', 'MPI']).scenarios.length).toBeGreaterThan(0);
    expect(plan(['--quick']).scenarios.every(({ quick }) => quick === true)).toBe(true);
    const held = plan(['--quick', '--only', 'held TCP, 32']).scenarios[0];
    expect(held?.variants.map(({ name }) => name)).toEqual(['plain', '5 ms epochs']);
    expect(() => plan(['--only', 'no such thing'])).toThrow('fits');
    expect(() => plan(['--laps', 'x'])).toThrow('above 0');
  });
});

describe('report', () => {
  it('judges what came in a window by what came beside it: a machine that changes its pace is no loss', () => {
    expect(shares([[100, 1000], [109, 1010], [136, 1040], [226, 1140]])).toEqual([0.9, 0.9, 0.9]);
    expect(shares([[5, 5]])).toEqual([]);
  });

  it('bounds held TCP by the smallest window over the round trip', () => {
    const interval = (omitted: boolean, rtt: number) => ({ streams: [{ rtt, snd_cwnd: 16e6, snd_wnd: 8e6, omitted }] });
    const raw = JSON.stringify({ intervals: [interval(true, 100), interval(false, 8000)] });
    expect(tcpBound(raw, 4e6)).toEqual({ boundGbps: 4, roundTripMs: 8 });
    expect(tcpBound(raw, 64e6)).toEqual({ boundGbps: 8, roundTripMs: 8 });
  });

  it('draws what it was given and escapes what it says', async () => {
    const { scenario } = told({ plain: [10], group: [5] }, { name: 'a <b>' });
    const outcome = { scenario, result: await run(scenario, 1) };
    const figures = figuresOf(scenario, outcome.result);
    const drawn = await charts([outcome], figures);
    expect(drawn.map(({ title }) => title)).toEqual(['Rates beside the plain bridge']);
    const html = page({ outcomes: [outcome], figures, charts: drawn, machineLine: 'm', room: 0.5 });
    expect(html).toContain('a &lt;b&gt;');
    expect(html).toContain('<svg');
    expect(html).toContain('more than 50 %');
    expect(html).not.toMatch(/<script|src="http|href="http/);
  });

  it('says what a dashed line is', async () => {
    const scenario: Scenario = {
      ...told({ 'own ledger': [1], '1 host': [2], '8 hosts': [3] }).scenario,
      variants: [{ name: 'own ledger' }, { name: '1 host', x: 1 }, { name: '8 hosts', x: 8 }], xLabel: 'hosts', baseline: false,
    };
    const outcome = { scenario, result: await run(scenario, 1) };
    const drawn = await charts([outcome], figuresOf(scenario, outcome.result));
    expect(drawn.map(({ caption }) => caption).join()).toMatch(/; dashed: own ledger\.$/);
  });

  it('replaces its own block of README and nothing else', () => {
    expect(withBlock('a\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nz', 'new\n')).toBe('a\n<!-- bench: begin -->\nnew\n<!-- bench: end -->\nz');
    expect(() => withBlock('a', 'b')).toThrow('no block');
  });
});
