/** CPU time that a process has used, by the scheduler's own account. */
import { readFileSync, readdirSync } from 'node:fs';

/** Of all its threads, or of those of this name; microseconds. Threads that have ended are not in it. */
export function cpuUs(pid: number, thread?: string): number {
  const tasks = readdirSync(`/proc/${pid}/task`).map((task) => `/proc/${pid}/task/${task}`);
  const mine = thread === undefined ? tasks : tasks.filter((task) => readFileSync(`${task}/comm`, 'utf8').trim() === thread);
  return mine.reduce((us, task) => us + Number(readFileSync(`${task}/schedstat`, 'utf8').split(' ')[0]) / 1e3, 0);
}
