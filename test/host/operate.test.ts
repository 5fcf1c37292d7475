/** What an operator does beside protecting: bridges attached and detached, hooks told of what happens. */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Bed } from '../../bench/bed/bed.ts';
import { CommandError, run, runIn, until } from '../../bench/bed/commands.ts';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import { withBed } from '../support/with-bed.ts';
import { UNPRIVILEGED } from './privilege.ts';

const PATIENCE_MS = 30_000;

/** `sluice`, in the bed's host. */
async function sluice(bed: Bed, ...args: string[]): Promise<string> {
  try {
    return await runIn(bed.host, process.execPath, [join(repositoryRoot(), 'bin/sluice'), '--socket', bed.daemon().socket, ...args]);
  } catch (error) {
    if (error instanceof CommandError) return `refused: ${error.message}`;
    throw error;
  }
}

/** All that can be configured of the host's devices, and the bridge's own entries; no counters, no learned addresses. */
async function configuration(bed: Bed): Promise<string> {
  const links = JSON.parse(await runIn(bed.host, 'ip', ['-j', '-d', 'link', 'show'])) as { ifname: string; linkinfo?: { info_data?: Record<string, unknown> } }[];
  for (const { linkinfo } of links) for (const key of Object.keys(linkinfo?.info_data ?? {})) if (/timer|gc_/.test(key)) delete linkinfo?.info_data?.[key];
  const own = (await runIn(bed.host, 'bridge', ['fdb', 'show'])).split('\n').filter((line) => /permanent|static/.test(line)).sort();
  return JSON.stringify([links.sort((a, b) => a.ifname.localeCompare(b.ifname)), own, (await runIn(bed.host, 'bridge', ['-j', 'vlan', 'show'])).trim()], null, 1);
}

/** The kernel tells a device's state up to a second after its cable was plugged in: what stays for longer than that. */
async function settledConfiguration(bed: Bed): Promise<string> {
  let [last, sinceMs] = ['', 0];
  await until('the devices are at rest', async () => {
    const now = await configuration(bed);
    if (now !== last) [last, sinceMs] = [now, performance.now()];
    return performance.now() - sinceMs > 1500;
  }, PATIENCE_MS);
  return last;
}

describe.skipIf(UNPRIVILEGED !== undefined)('operating it', () => {
  test('a bridge is attached and detached again and again, nothing of it is changed, and no other may be used meanwhile', async () => {
    await withBed(async (bed) => {
      await bed.daemon().start();
      const bridges = join(bed.directory, 'bridges');
      const bridge = (JSON.parse(await runIn(bed.host, 'ip', ['-j', 'link', 'show', 'type', 'bridge'])) as { ifname: string }[])[0]?.ifname ?? '';
      const before = await settledConfiguration(bed);
      expect(await sluice(bed, 'attach', 'lo', '--bridges', bridges)).toMatch(/refused: .*lo is not a bridge of this network namespace; there are: /s);
      for (const outcome of ['attached', 'already attached']) {
        expect(JSON.parse(await sluice(bed, '--json', 'attach', bridge, '--bridges', bridges, '--force'))).toMatchObject({ bridge, outcome });
      }
      expect(existsSync(join(bridges, bridge))).toBe(true);
      expect(await configuration(bed)).toBe(before);

      const { api } = bed.daemon();
      await api.must('PUT', '/v1/groups/web', bed.groupFile('web'));
      await api.must('POST', '/v1/groups/web/protect', {});
      expect(await sluice(bed, 'attach', bridge, '--bridges', bridges, '--force')).toMatch(new RegExp(`${bed.member(0).port}\\s.*member .* of web, protected`));
      expect(await sluice(bed, 'detach', bridge, '--bridges', bridges)).toMatch(/refused: .*group web is protected on/s);
      await api.must('POST', '/v1/groups/web/unprotect', { generation: 1, held: 'discard' });
      await until('everything of it is gone', async () => (await configuration(bed)) === before, PATIENCE_MS);

      mkdirSync(bridges, { recursive: true });
      writeFileSync(join(bridges, 'elsewhere'), '');
      expect(await sluice(bed, 'detach', bridge, '--bridges', bridges)).toMatch(/: detached\./);
      expect(await sluice(bed, 'detach', bridge, '--bridges', bridges)).toMatch(/: was not attached\./);
      expect(await api.call('POST', '/v1/groups/web/protect', {})).toMatchObject({ status: 400, body: { code: 'bad_request', message: expect.stringMatching(new RegExp(`is in bridge ${bridge}.*sluice attach ${bridge}`)) as string } });
      expect(await api.call('GET', '/readyz')).toMatchObject({ status: 503, body: { missing: ['bridge elsewhere is attached and not there'] } });
      expect(await sluice(bed, 'detach', 'elsewhere', '--bridges', bridges)).toMatch(/: detached\./);
      expect(existsSync(bridges)).toBe(false);
      await api.must('POST', '/v1/groups/web/protect', {});
      await api.must('POST', '/v1/groups/web/unprotect', { generation: 2, held: 'discard' });
      await until('it is as it was', async () => (await configuration(bed)) === before, PATIENCE_MS);
    });
  });

  test('the hook command is told what happens, survives nothing of it, and a slow one delays no release', async () => {
    await withBed(async (bed) => {
      const hook = join(bed.directory, 'hook');
      const told = join(bed.directory, 'told');
      const begun = join(bed.directory, 'begun');
      writeFileSync(hook, `#!/bin/sh\ncat >> ${told}\ncase $SLUICE_EVENT in taken-over) echo > ${begun}; sleep 600 ;; esac\n`);
      chmodSync(hook, 0o755);
      const daemon = bed.daemon({ hooks: { command: hook, timeout: '60s' } });
      await daemon.start();
      const types = (): string[] => (existsSync(told) ? readFileSync(told, 'utf8') : '').trim().split('\n').filter((line) => line !== '').map((line) => (JSON.parse(line) as { type: string }).type);
      await daemon.api.must('PUT', '/v1/groups/web', bed.groupFile('web'));
      await daemon.api.must('POST', '/v1/groups/web/protect', {});
      await daemon.api.must('POST', '/v1/groups/web/cut', { generation: 1, epoch: 1 });
      await daemon.api.must('POST', '/v1/groups/web/commit', { generation: 1, epoch: 1 });
      await run('ip', ['-n', bed.host, 'link', 'set', bed.member(0).port, 'nomaster']);
      await until('the lost port was told', () => types().includes('port-lost'), PATIENCE_MS);
      expect(types().filter((type) => type === 'cut' || type === 'committed')).toEqual([]);
      await daemon.api.must('POST', '/v1/groups/web/takeover', { generation: 2, epoch: 1 });
      await until('the slow one runs', () => existsSync(begun), PATIENCE_MS);
      await daemon.api.must('POST', '/v1/groups/web/cut', { generation: 2, epoch: 2 });
      await daemon.api.must('POST', '/v1/groups/web/commit?wait=released', { generation: 2, epoch: 2 });
      const sleeper = (await run('ps', ['-eo', 'args'])).split('\n').filter((line) => line.includes(hook));
      expect(sleeper.length).toBeGreaterThan(0);
      await daemon.stop();
      await until('what it had started is gone', async () => !(await run('ps', ['-eo', 'args'])).includes(hook), PATIENCE_MS);
    });
  });
});
