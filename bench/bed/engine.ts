/**
 * The checkpoint engine of tests and measurements: cuts and commits by the clock, and tells the
 * oracle each command's begin before the call and its answer after.
 *
 *   ── cut(1) ──── cut(2) ──── cut(3) ────►      every intervalMs
 *          └ commitDelayMs ┴ commit(1)  ┴ commit(2)      several epochs in flight when it is longer
 *
 * Commands of one engine are sent one after the other; a commit that is due waits for the cut
 * under way. A command that gets no answer (the daemon died or is frozen) ends the run in
 * `failure`; `sync()` learns the daemon's state again and `run()` goes on.
 */
import { ApiRefusal, type Api, type GroupAnswer } from './api.ts';
import { sleep } from './commands.ts';
import { nowUs } from './libc.ts';
import type { Oracle } from './oracle.ts';
import type { WireApi } from './wire.ts';

export interface Cadence {
  readonly intervalMs: number;
  readonly commitDelayMs: number;
}

/** What an engine asks through: the tests' client, or bytes on the socket (wire.ts). */
export type EngineApi = Pick<Api, 'must' | 'group'> | WireApi;

export class Engine {
  readonly group: string;
  readonly #api: EngineApi;
  readonly #oracle: Oracle | undefined;
  generation = 0;
  open = 0;
  cuts = 0;
  commits = 0;
  readonly cutUs: number[] = [];
  readonly commitUs: number[] = [];
  #running: Promise<void> | undefined;
  #stopping = false;
  /** What ended the run, if it was not `stop()`. */
  failure: Error | undefined;

  constructor(api: EngineApi, group: string, oracle?: Oracle) {
    this.#api = api;
    this.group = group;
    this.#oracle = oracle;
  }

  async protect(groupFile: object): Promise<GroupAnswer> {
    await this.#api.must('PUT', `/v1/groups/${this.group}`, groupFile);
    const answer = await this.#post('protect', {});
    this.#learn(answer);
    return answer;
  }

  /** Learns generation and open epoch from the daemon, after its restart. */
  async sync(): Promise<GroupAnswer> {
    const answer = await this.#api.group('GET', `/v1/groups/${this.group}`);
    this.#learn(answer);
    this.#oracle?.opened(answer.open);
    return answer;
  }

  /** Seals the open epoch; with `member`, that member's epoch `epoch` alone. */
  async cut(member?: string, epoch = this.open): Promise<GroupAnswer> {
    const beginUs = nowUs();
    const answered = this.#oracle?.begin('cut', epoch, beginUs, member);
    const body = { generation: this.generation, epoch, ...(member === undefined ? {} : { member }) };
    const answer = await this.#told(this.#post('cut', body), answered);
    this.cutUs.push(nowUs() - beginUs);
    this.cuts++;
    this.open = answer.open;
    return answer;
  }

  async commit(epoch = this.open - 1, query = ''): Promise<GroupAnswer> {
    const beginUs = nowUs();
    const answered = this.#oracle?.begin('commit', epoch, beginUs);
    const answer = await this.#told(this.#post(`commit${query}`, { generation: this.generation, epoch }), answered);
    this.commitUs.push(nowUs() - beginUs);
    this.commits++;
    return answer;
  }

  async rollback(epoch: number): Promise<GroupAnswer> {
    const answered = this.#oracle?.begin('rollback', epoch, nowUs());
    const answer = await this.#told(this.#post('rollback', { generation: this.generation, epoch }), answered);
    this.open = answer.open;
    return answer;
  }

  async takeover(epoch: number, generation = this.generation + 1): Promise<GroupAnswer> {
    const answered = this.#oracle?.begin('takeover', epoch, nowUs());
    const answer = await this.#told(this.#post('takeover', { generation, epoch }), answered);
    this.#learn(answer);
    return answer;
  }

  async unprotect(held: 'release' | 'discard'): Promise<GroupAnswer> {
    if (held === 'release') this.#oracle?.begin('released', 0, nowUs());
    return this.#post('unprotect', { generation: this.generation, held });
  }

  /** Cuts and commits until `stop()`. */
  run(cadence: Cadence): void {
    if (this.#running !== undefined) throw new Error('the engine runs already');
    this.#stopping = false;
    this.failure = undefined;
    this.#running = this.#loop(cadence).catch((error: unknown) => {
      this.failure = error instanceof Error ? error : new Error(String(error));
    });
  }

  /** Ends the run; with `finish` cuts and commits what is open, so that everything held leaves. */
  async stop(finish = false): Promise<void> {
    this.#stopping = true;
    await this.#running;
    this.#running = undefined;
    if (!finish) return;
    await this.cut();
    await this.commit(this.open - 1, '?wait=released');
  }

  async #loop({ intervalMs, commitDelayMs }: Cadence): Promise<void> {
    const due: { epoch: number; atUs: number }[] = [];
    let nextCutUs = nowUs() + intervalMs * 1e3;
    while (!this.#stopping) {
      if (nowUs() >= nextCutUs) {
        const sealed = this.open;
        await this.cut();
        due.push({ epoch: sealed, atUs: nowUs() + commitDelayMs * 1e3 });
        nextCutUs = Math.max(nextCutUs + intervalMs * 1e3, nowUs());
      }
      let ready: number | undefined;
      while (due[0] !== undefined && due[0].atUs <= nowUs()) ready = due.shift()?.epoch;
      if (ready !== undefined) await this.commit(ready);
      const waitMs = (Math.min(nextCutUs, due[0]?.atUs ?? nextCutUs) - nowUs()) / 1e3;
      if (waitMs > 0) await sleep(waitMs);
    }
  }

  #post(verb: string, body: object): Promise<GroupAnswer> {
    return this.#api.group('POST', `/v1/groups/${this.group}/${verb}`, body);
  }

  #learn(answer: GroupAnswer): void {
    this.generation = answer.generation;
    this.open = answer.open;
  }

  /** Tells the oracle what the answer was; silence is told by not telling. */
  async #told(answer: Promise<GroupAnswer>, answered: ((accepted: boolean) => void) | undefined): Promise<GroupAnswer> {
    try {
      const group = await answer;
      answered?.(true);
      return group;
    } catch (error) {
      if (error instanceof ApiRefusal) answered?.(false);
      throw error;
    }
  }
}
