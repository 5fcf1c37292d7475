/**
 * `sluice doctor` and a real socket at VXLAN's port: what it says before a group by VXLAN is protected
 * is what the kernel does then. All in a network namespace of the test's own.
 */
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import type { SocketType } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import type { Finding } from '../../checkpoint-hooks/doctor.ts';
import { enterOwnNamespace, ip } from '../support/own-namespace.ts';
import { UNPRIVILEGED } from './privilege.ts';

describe.skipIf(UNPRIVILEGED !== undefined)('doctor, and who has VXLAN\'s UDP port', () => {
  const dir = mkdtempSync(join(tmpdir(), 'sl-port-'));
  const file = join(dir, 'web.json');
  const members = [{ name: 'm1', host: 'h1', port: 'tap0', mac: '02:00:00:00:00:01' }];
  const vxlanSays = async (...args: string[]): Promise<string> => {
    const command = [join(repositoryRoot(), 'bin/sluice'), '--json', '--socket', join(dir, 'none'), 'doctor', '-f', file, '--host', 'h1', ...args];
    const { stdout } = await promisify(execFile)(process.execPath, command).catch((error: unknown) => error as { stdout: string });
    const [, port] = (JSON.parse(stdout) as Finding[]).filter(({ check }) => check === 'vxlan');
    return `${port?.level} ${port?.text}${port?.fix === undefined ? '' : ` | ${port.fix}`}`;
  };
  /** What sluiced would do with it. */
  const rise = (port: number): string => {
    ip(`link add slx type vxlan external gbp dstport ${port}`);
    try {
      ip('link set slx up');
      return 'up';
    } catch (error) {
      return String((error as { stderr?: Buffer }).stderr ?? error);
    } finally {
      ip('link del slx');
    }
  };

  beforeAll(() => {
    enterOwnNamespace();
    writeFileSync(file, JSON.stringify({ group: 'web', commit: 'acks', wire: { vxlan: 7, hosts: { h1: '127.0.0.1' } }, members }));
  });
  afterAll(() => {
    rmSync(dir, { recursive: true });
  });

  test('nobody: the port is free, and the device comes up', async () => {
    expect(await vxlanSays()).toBe('ok UDP port 4789 is free for the VXLAN device, which sluiced makes');
    expect(rise(4789)).toBe('up');
  });

  test.each<[string, SocketType, string, number, string[]]>([
    ['one address of IPv4', 'udp4', '127.0.0.1', 4789, []],
    ['IPv6 alone', 'udp6', '::1', 4789, []],
    ['the port of the settings', 'udp4', '0.0.0.0', 8472, ['--vxlan-port', '8472']],
  ])('a socket of %s has it: the device would not come up, and doctor says so', async (_name, type, address, port, args) => {
    const socket = createSocket({ type, ipv6Only: type === 'udp6' });
    try {
      socket.bind(port, address);
      await once(socket, 'listening');
      expect(await vxlanSays(...args)).toBe(`fail a socket has UDP port ${port} | ss -uanp 'sport = :${port}' says whose: end that, or set vxlan.port to another port in the settings of sluiced on all hosts`);
      expect(rise(port)).toMatch(/Address already in use/);
      expect(await vxlanSays('--vxlan-port', '4790')).toMatch(/^ok UDP port 4790 is free/);
    } finally {
      socket.close();
    }
  });
});
