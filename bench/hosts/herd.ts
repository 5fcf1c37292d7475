/**
 * One engine of many groups across hosts: what is due of all of them goes to each host in one request.
 *
 *   each group, every intervalMs:  cut at all hosts ── storeMs ── ack at all hosts
 *   each round:                    [ cuts and acks that are due ] ─► h1, h2, h3 at once ─► the next round
 *
 * Rounds are a tick apart or as long as the hosts need: the later they answer, the more is due in the
 * next. A group that is late begins its next epoch at once, and has never two at a time; it keeps its
 * times, so what it lost by a pause it makes up for, but no more than one interval.
 */
import { LIMITS } from '../../proxy/api/contract.ts';
import type { Daemon } from '../bed/daemon.ts';
import { WireApi } from '../bed/wire.ts';
import type { FarmGroup } from './farm.ts';

const TICK_MS = 4;

export interface Pace {
  readonly intervalMs: number;
  readonly storeMs: number;
  readonly isOver: () => boolean;
  /** A group's open epoch is about to be cut; its epoch is about to be acked. */
  readonly beforeCut?: (group: FarmGroup) => void;
  readonly beforeAck?: (group: FarmGroup) => void;
}
interface Turn {
  readonly group: FarmGroup;
  next: 'cut' | 'ack';
  dueMs: number;
  cutMs: number;
}

export class Herd {
  readonly #hosts: readonly WireApi[];

  private constructor(hosts: readonly WireApi[]) {
    this.#hosts = hosts;
  }

  static async open(daemons: readonly Daemon[]): Promise<Herd> {
    return new Herd(await Promise.all(daemons.map(({ socket }) => WireApi.open(socket))));
  }

  /** Drives them until it is over. Throws what a daemon refused. */
  async drive(groups: readonly FarmGroup[], pace: Pace): Promise<void> {
    const beginMs = performance.now();
    const turns = groups.map((group, g): Turn => ({ group, next: 'cut', dueMs: beginMs + (g * pace.intervalMs) / groups.length, cutMs: 0 }));
    while (!pace.isOver() || turns.some(({ next }) => next === 'ack')) {
      const roundMs = performance.now();
      const due = turns.filter(({ dueMs, next }) => dueMs <= roundMs && !(pace.isOver() && next === 'cut')).slice(0, LIMITS.commandsMax);
      if (due.length > 0) await this.#round(due, pace);
      const restMs = roundMs + TICK_MS - performance.now();
      if (restMs > 0) await new Promise((resolve) => setTimeout(resolve, restMs));
    }
  }

  close(): void {
    for (const host of this.#hosts) host.close();
  }

  async #round(due: readonly Turn[], pace: Pace): Promise<void> {
    for (const { next, group } of due) (next === 'cut' ? pace.beforeCut : pace.beforeAck)?.(group);
    const commands = due.map(({ next, group }) => group.command(next));
    await Promise.all(this.#hosts.map(async (host) => mustAll(await host.must('POST', '/v1/commands', { commands }))));
    const nowMs = performance.now();
    for (const turn of due) {
      if (turn.next === 'cut') {
        turn.group.open += 1;
        Object.assign(turn, { next: 'ack', cutMs: turn.dueMs, dueMs: nowMs + pace.storeMs });
      } else {
        Object.assign(turn, { next: 'cut', dueMs: Math.max(turn.cutMs, nowMs - 2 * pace.intervalMs) + pace.intervalMs });
      }
    }
  }
}

function mustAll(reply: unknown): void {
  const answers = typeof reply === 'object' && reply !== null && 'answers' in reply && Array.isArray(reply.answers) ? (reply.answers as unknown[]) : [];
  const refused = answers.find((answer) => typeof answer === 'object' && answer !== null && 'code' in answer);
  if (answers.length === 0 || refused !== undefined) throw new Error(`a command of many was refused: ${JSON.stringify(refused ?? reply)}`);
}
