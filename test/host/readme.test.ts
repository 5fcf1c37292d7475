/**
 * README's block "On your own bridge", pasted as it stands by somebody who is in a hurry: a bridge with
 * two taps in a network namespace, the default paths, and not a second between the lines. Only
 * `make build` is left out: the build under test is there.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import { enterOwnNamespace, ip } from '../support/own-namespace.ts';
import { UNPRIVILEGED } from './privilege.ts';

/** Its own /run, /etc/sluice and /var/lib, and pins; all of it and the daemon end with it. */
const WORLD = `set -eu
mount -t tmpfs -o mode=755 none /run
mount -t tmpfs -o mode=755 none /var/lib
[ ! -d /etc/sluice ] || mount -t tmpfs -o mode=755 none /etc/sluice
mount -t sysfs none /sys
mount -t bpf none /sys/fs/bpf
`;

describe.skipIf(UNPRIVILEGED !== undefined)('README', () => {
  const dir = mkdtempSync(join(tmpdir(), 'sl-readme-'));
  beforeAll(() => {
    enterOwnNamespace();
    ip('link add br0 type bridge');
    ip('link set br0 up');
    for (const tap of ['tap0', 'tap1']) {
      ip(`tuntap add ${tap} mode tap`);
      ip(`link set ${tap} master br0 up`);
    }
    symlinkSync(join(repositoryRoot(), 'bin'), join(dir, 'bin'));
  });
  afterAll(() => {
    rmSync(dir, { recursive: true });
  });

  test('its block on one\'s own bridge does what it says', async () => {
    const readme = readFileSync(join(repositoryRoot(), 'README.md'), 'utf8');
    const block = /^On your own bridge:\n\n```sh\n(.*?)^```/ms.exec(readme)?.[1] ?? '';
    expect(block).toMatch(/^make build\n/);
    const script = `${WORLD}\n${block.replace(/^make build\n/, '')}\nkill $!; wait $!`;
    const { stdout } = await promisify(execFile)('unshare', ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--propagation', 'private', 'bash', '-c', script], { cwd: dir, timeout: 60_000 });
    const replies = stdout.split('\n').filter((line) => /^web /.test(line)).map((line) => line.replace(/ {2,}/g, ' '));
    expect(replies.map((line) => /^web (\w+) generation (\d+) open (\d+)/.exec(line)?.slice(1).join(' '))).toEqual(['accepted 0 1', 'accepted 1 1', 'accepted 1 2', 'accepted 1 2', 'accepted 1 2']);
    expect(stdout).toContain('web: nothing is held');
  }, 90_000);
});
