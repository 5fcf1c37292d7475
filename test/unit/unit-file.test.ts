/** deploy/sluiced.service grants what the code says it needs, and nothing more; the manager is told what it waits for. */
import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { serviceManager } from '../../proxy/edge/notify.ts';
import { CAPABILITIES } from '../../proxy/preflight.ts';

const unit = readFileSync(new URL('../../deploy/sluiced.service', import.meta.url), 'utf8');
const valueOf = (key: string): string => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1] ?? '';

test('capabilities of the unit are those declared beside the code', () => {
  expect(valueOf('CapabilityBoundingSet').split(' ').sort()).toEqual([...CAPABILITIES].sort());
  expect(valueOf('NoNewPrivileges')).toBe('yes');
});

test('readiness and signs of life reach the manager\'s socket', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'sl-notify-'));
  const path = join(directory, 'notify');
  const listener = spawn('python3', ['-c', 'import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\nprint("bound",flush=True)\nfor _ in range(2): print(s.recv(99).decode(),flush=True)', path]);
  try {
    let said = '';
    listener.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
    await once(listener.stdout, 'data');
    const manager = serviceManager({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '30000000' });
    manager.tell('READY=1');
    manager.tell('WATCHDOG=1');
    await once(listener, 'close');
    expect(said).toBe('bound\nREADY=1\nWATCHDOG=1\n');
    expect(manager.watchdogMs).toBe(30_000);
    expect(serviceManager({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '1', WATCHDOG_PID: '1' }).watchdogMs).toBeUndefined();
    serviceManager({ NOTIFY_SOCKET: join(directory, 'nobody') }).tell('READY=1'); // nobody listens: nobody's trouble
    serviceManager({}).tell('READY=1');
  } finally {
    listener.kill();
    rmSync(directory, { recursive: true });
  }
});
