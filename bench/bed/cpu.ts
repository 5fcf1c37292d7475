/** CPU time: what a process has used, by the scheduler's own account, and what nobody has. */
import { readFileSync, readdirSync } from 'node:fs';

/** Of all its threads, or of those of this name; microseconds. Threads that have ended are not in it. */
export function cpuUs(pid: number, thread?: string): number {
  const tasks = readdirSync(`/proc/${pid}/task`).map((task) => `/proc/${pid}/task/${task}`);
  const mine = thread === undefined ? tasks : tasks.filter((task) => readFileSync(`${task}/comm`, 'utf8').trim() === thread);
  return mine.reduce((us, task) => us + Number(readFileSync(`${task}/schedstat`, 'utf8').split(' ')[0]) / 1e3, 0);
}

/** Time that the machine's cores had nothing to do, all together; microseconds, in steps of 10 ms. */
export function idleUs(): number {
  const [, , , , idle = 0, waiting = 0] = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').split(/ +/).map(Number);
  return (idle + waiting) * 1e4;
}
