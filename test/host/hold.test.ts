/**
 * The hold plane on the real thing: compiled worker, packet ring, kernel programs, a bridge. Each
 * scenario runs in a network namespace that ends with its process (test/support/hold-scenarios.ts).
 */
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { UNPRIVILEGED } from './privilege.ts';

const run = (scenario: string): Record<string, number> => {
  const script = ['--net', process.execPath, '--import', 'tsx', 'test/support/hold-scenarios.ts', scenario];
  const out = execFileSync('unshare', script, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  const figures = JSON.parse(out.trim().split('\n').at(-1) ?? '') as Record<string, number>;
  console.log(scenario, figures);
  return figures;
};

test.skipIf(UNPRIVILEGED)('frames of every size and tagging come out as they went in, after the commit', () => {
  expect(run('exact')['frames']).toBe(400);
});
test.skipIf(UNPRIVILEGED)('super-frames keep their segmentation and checksum offsets, tagged ones too', () => {
  expect(run('gso')).toMatchObject({ frames: 4, refused: 0 });
});
test.skipIf(UNPRIVILEGED)('a rollback lets out exactly the epochs up to its target', () => {
  expect(run('rollback')).toMatchObject({ out: 150, discarded: 100 });
});
test.skipIf(UNPRIVILEGED)('a flood beyond the bound is dropped, said, and accounted for', () => {
  expect(run('overflow')['overflow']).toBeGreaterThan(0);
});
test.skipIf(UNPRIVILEGED)('a drain lets everything out and then new frames pass', () => {
  expect(run('drain')['covered']).toBe(300);
});
test.skipIf(UNPRIVILEGED)('a broken invariant ends the worker; what is only wrong is answered', () => {
  expect(run('fault')['dead']).toBe(1);
});
test.skipIf(UNPRIVILEGED)('a million held frames leave no memory behind', () => {
  expect(run('million')['frames']).toBeGreaterThan(0);
});
