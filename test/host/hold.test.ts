/**
 * The hold plane on the real thing: compiled worker, packet ring, its own or the pool's, kernel programs, a
 * bridge. Each scenario runs in a network namespace that ends with its process (test/support/hold-scenarios.ts).
 */
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { UNPRIVILEGED } from './privilege.ts';

type Kind = 'ring' | 'pool';
const KINDS: readonly Kind[] = ['ring', 'pool'];

const run = (kind: Kind, scenario: string): Record<string, number> => {
  const script = ['--net', process.execPath, '--import', 'tsx', 'test/support/hold-scenarios.ts', kind, scenario];
  const out = execFileSync('unshare', script, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  const figures = JSON.parse(out.trim().split('\n').at(-1) ?? '') as Record<string, number>;
  console.log(kind, scenario, figures);
  return figures;
};

test.skipIf(UNPRIVILEGED).each(KINDS)('%s: frames of every size and tagging come out as they went in, after the commit', (kind) => {
  expect(run(kind, 'exact')['frames']).toBe(400);
});
test.skipIf(UNPRIVILEGED).each(KINDS)('%s: super-frames keep their segmentation and checksum offsets, tagged ones too', (kind) => {
  expect(run(kind, 'gso')).toMatchObject({ frames: 4, refused: 0 });
});
test.skipIf(UNPRIVILEGED).each(KINDS)('%s: a rollback lets out exactly the epochs up to its target', (kind) => {
  expect(run(kind, 'rollback')).toMatchObject({ out: 150, discarded: 100 });
});
test.skipIf(UNPRIVILEGED).each(KINDS)('%s: a flood beyond the bound is dropped, said, and accounted for', (kind) => {
  expect(run(kind, 'overflow')['overflow']).toBeGreaterThan(0);
});
test.skipIf(UNPRIVILEGED).each(KINDS)('%s: a drain lets everything out and then new frames pass', (kind) => {
  expect(run(kind, 'drain')['covered']).toBe(300);
});
test.skipIf(UNPRIVILEGED).each(KINDS)('%s: a broken invariant ends the worker; what is only wrong is answered', (kind) => {
  expect(run(kind, 'fault')['dead']).toBe(1);
});
test.skipIf(UNPRIVILEGED).each(KINDS)('%s: a million held frames leave no memory behind', (kind) => {
  expect(run(kind, 'million')['frames']).toBeGreaterThan(0);
});
