/**
 * A program with a mount and a process namespace of its own, in a bed's network namespace: it may believe that the
 * machine's /etc, /run and /var are its own, and whatever it starts dies with it.
 */
import { readFileSync } from 'node:fs';
import { end, run, startIn } from '../../bench/bed/commands.ts';
import type { Running } from '../../bench/bed/commands.ts';

export class OwnWorld {
  readonly #running: Running;

  /** `script`: of sh, with `args` as $1 …; it mounts what it wants over the machine's, and stays. */
  constructor(namespace: string, script: string, args: readonly string[], env: Record<string, string> = {}) {
    this.#running = startIn(namespace, 'unshare', ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--propagation', 'private', 'sh', '-c', script, 'world', ...args], env);
  }

  /** Another program in it, to its end. */
  run(program: string, ...args: string[]): Promise<string> {
    const outer = this.#running.child.pid ?? 0;
    const inner = readFileSync(`/proc/${outer}/task/${outer}/children`, 'utf8').trim();
    return run('nsenter', ['-t', inner, '--mount', '--pid', '--net', program, ...args]);
  }

  /** What its programs have said. */
  output(): string {
    return this.#running.output();
  }

  async close(): Promise<void> {
    await end(this.#running, 'SIGKILL');
  }
}
