/**
 * A program with open beds is told to end: namespaces, daemon and files go with it, at once.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { end, sleep, start, until } from '../../bench/bed/commands.ts';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import { UNPRIVILEGED } from './privilege.ts';

const bed = (name: string): string => JSON.stringify(join(repositoryRoot(), 'dist/bench/bed', name));
const PROGRAM = `
  import { abandonOnSignal } from ${bed('abandon.js')};
  import { Bed } from ${bed('bed.js')};
  abandonOnSignal();
  const bed = await Bed.create({ members: ['veth', 'tap'] });
  await bed.daemon().start();
  console.log(JSON.stringify({ id: bed.id, directory: bed.directory, pid: bed.daemon().pid }));
  setInterval(() => undefined, 1000);
`;

test.skipIf(UNPRIVILEGED !== undefined)(`a program that is told to end leaves nothing of its bed ${UNPRIVILEGED ?? ''}`, async () => {
  const program = start(process.execPath, ['--input-type=module', '-e', PROGRAM]);
  try {
    await until('the bed stands', () => program.output().includes('}') || program.child.exitCode !== null, 40_000);
    const made = JSON.parse(program.output()) as { id: string; directory: string; pid: number };
    const left = (): string[] => [
      ...['/run/netns', '/sys/fs/bpf', '/dev/shm'].flatMap((place) => readdirSync(place).filter((name) => name.includes(made.id))),
      ...[made.directory, `/proc/${made.pid}`].filter((path) => existsSync(path)),
    ];
    expect(left().length).toBeGreaterThanOrEqual(5); // three namespaces, the directory, the daemon
    program.child.kill('SIGTERM');
    await sleep(5);
    expect(await end(program, 'SIGTERM'), 'said twice, as timeout(1) does').toBe(130);
    await until('the daemon is gone', () => !existsSync(`/proc/${made.pid}`), 10_000);
    expect(left()).toEqual([]);
  } finally {
    await end(program, 'SIGTERM');
  }
});
