/**
 * From durable to committed: each durable epoch is committed (or acked) `delayMs` later, the newest
 * that is due at once for all before it. The delay stands for a backup further away.
 *
 *     durable(7) ──delay──► commit(7)       durable(8), durable(9) ──delay──► commit(9)
 *
 * `finish` waits until nothing is left. A daemon in trouble is outlived by the session; when that
 * gives up, the error is `run`'s.
 */
import type { SluiceClient } from '../../client.ts';
import type { GroupSession } from '../session.ts';
import { Wakeup } from '../wakeup.ts';

interface Due {
  readonly epoch: number;
  readonly atMs: number;
}

export class Commits {
  private readonly client: Pick<SluiceClient, 'ack' | 'commit'>;
  private readonly session: GroupSession;
  private readonly group: string;
  private readonly delayMs: number;
  private readonly wakeup = new Wakeup();
  private due: Due[] = [];
  private ending = false;

  constructor(client: Pick<SluiceClient, 'ack' | 'commit'>, session: GroupSession, group: string, delayMs: number) {
    this.client = client;
    this.session = session;
    this.group = group;
    this.delayMs = delayMs;
  }

  durable(epoch: number): void {
    this.due.push({ epoch, atMs: performance.now() + this.delayMs });
    this.wakeup.wake();
  }

  /** Nothing more is asked for; `drop`: not even what is due. */
  end(drop: boolean): void {
    this.ending = true;
    if (drop) this.due = [];
    this.wakeup.wake();
  }

  async run(onCommitted: (epoch: number) => void): Promise<void> {
    while (!this.ending || this.due.length > 0) {
      const waitMs = (this.due[0]?.atMs ?? Infinity) - performance.now();
      if (waitMs > 0) {
        await this.wakeup.wait(waitMs);
        continue;
      }
      const nowMs = performance.now();
      const ripe = this.due.filter(({ atMs }) => atMs <= nowMs);
      this.due = this.due.slice(ripe.length);
      const epoch = ripe.at(-1)?.epoch;
      if (epoch === undefined) continue;
      const body = { generation: this.session.now.generation, epoch };
      const send = this.session.mode === 'acks' ? () => this.client.ack(this.group, body) : () => this.client.commit(this.group, body);
      if ((await this.session.attempt(send)) !== undefined) onCommitted(epoch);
    }
  }
}
