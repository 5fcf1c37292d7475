/** The alert rules as Prometheus itself reads and evaluates them: promtool, and series that each rule must or must not answer. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../../bench/bed/commands.ts';
import { repositoryRoot } from '../../bench/bed/daemon.ts';

test('promtool finds nothing wrong with the rules', async () => {
  expect(await run('promtool', ['check', 'rules', join(repositoryRoot(), 'deploy/prometheus/sluice-alerts.yaml')])).toMatch(/SUCCESS: 10 rules found/);
});

test('each rule fires for the series that mean it, and for no others', async () => {
  expect(await run('promtool', ['test', 'rules', join(repositoryRoot(), 'test/callers/alerts.yaml')])).toMatch(/SUCCESS/);
});
