/**
 * Several commands in one request: for an engine that checkpoints many groups, whose time else goes
 * into requests (a cut by itself is 0.1 ms of the daemon's main thread, most of it HTTP).
 *
 *     commands ─► all to their groups at once, each group's in the order given ─► answers, in that order
 *
 * Each is judged for itself and answered what it would have been answered alone: one that is refused
 * stops no other; the answer waits for the slowest. A request that is refused as a whole (its shape, a
 * group that the caller has no right on, too many in a second) has done nothing.
 */
import type { Command } from '../core/types.ts';
import { COMMANDS_ROUTE } from './caller.ts';
import { answered, numbers, replies } from './commands.ts';
import type { App } from './commands.ts';
import { CommandsBody, CommandsReply, NoQuery } from './contract.ts';
import type { CommandReply, EpochCommand, Refusal } from './contract.ts';
import type { ApiDeps } from './deps.ts';
import { refusalTo, Refused } from './refuse.ts';

const SECOND_MS = 1000;

export function addSeveralRoute(app: App, deps: ApiDeps, perSecondMax: number): void {
  const rate = new Rate(perSecondMax);
  app.post(COMMANDS_ROUTE, {
    schema: { summary: 'Commands of every epoch, of many groups', querystring: NoQuery, body: CommandsBody, response: replies(CommandsReply) },
  }, async (request) => {
    const commands = request.body.commands.map((one) => [one.group, commandOf(one)] as const);
    if (!rate.admits(request.ip, commands.length)) throw new Refused('rate_limited', `more than ${perSecondMax} commands in a second; slow down`);
    const startedMs = performance.now();
    const answers = await Promise.all(commands.map(async ([group, command]): Promise<CommandReply | Refusal> => {
      try {
        return answered(deps, { group, command, startedMs }, await deps.control.submit(group, command));
      } catch (error) {
        return refusalTo(deps, error, request, group);
      }
    }));
    return { answers };
  });
}

function commandOf(one: EpochCommand): Command {
  const { group, command, member, members } = one;
  const at = numbers(one);
  if (member !== undefined && command !== 'cut') throw new Refused('bad_request', `group ${group}: only a cut is of one "member"${command === 'ack' ? '; write members: ["…"]' : ''}`);
  if (members !== undefined && command !== 'ack') throw new Refused('bad_request', `group ${group}: only an ack is of "members"${command === 'cut' ? '; write member: "…"' : ''}`);
  switch (command) {
    case 'cut': return member === undefined ? { kind: 'cut', ...at } : { kind: 'cut', ...at, member };
    case 'ack': return members === undefined ? { kind: 'ack', ...at } : { kind: 'ack', ...at, members };
    case 'commit': return { kind: 'commit', ...at };
  }
}

/** Commands in the present second, by address; those of the unix socket are one. */
class Rate {
  readonly #counts = new Map<string, number>();
  readonly #max: number;
  #sinceMs = -Infinity;

  constructor(max: number) {
    this.#max = max;
  }

  admits(from: string, commands: number): boolean {
    const nowMs = performance.now();
    if (nowMs - this.#sinceMs >= SECOND_MS) {
      this.#counts.clear();
      this.#sinceMs = nowMs;
    }
    const count = (this.#counts.get(from) ?? 0) + commands;
    if (count <= this.#max) this.#counts.set(from, count);
    return count <= this.#max;
  }
}
