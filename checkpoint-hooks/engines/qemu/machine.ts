/**
 * One running QEMU: what the engine does to it by QMP, and its process.
 *
 *   attach ─► stop ─► saveState ─► cont          a guest that runs
 *   attach ─► listen ─► restoreState ─► cont     a standby (`-incoming defer`)
 *
 * The device state goes through `migrate` with x-ignore-shared: tens of kilobytes, since RAM is the
 * shared file. QEMU sends RAM before devices in every migration, so no device touches memory while
 * it is saved, and memory may be compared at the same time.
 *
 * A restored guest announces nothing of itself (announce-rounds): Sluice announces it with the
 * takeover, while what the guest says is held, and would only call for a checkpoint.
 *
 * A process is killed by number only after its command line was seen to name its own QMP socket: a
 * number may be somebody else's by now.
 */
import { readFileSync, rmSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestSide } from './guest.ts';
import { Qmp, QmpClosed, QmpRefused } from './qmp.ts';

const SAVE_DEADLINE_MS = 5000;
const STATE_BYTES_MAX = 64 << 20;
/** `cont` right after a migration may be refused for a moment. */
const CONT_TRIES_MAX = 200;
const UNLIMITED_BYTES_PER_S = 2 ** 40;

export type RunState = 'running' | 'paused' | 'postmigrate' | 'inmigrate' | 'finish-migrate' | 'other';
const RUN_STATES: readonly RunState[] = ['running', 'paused', 'postmigrate', 'inmigrate', 'finish-migrate'];

export class Machine {
  readonly side: GuestSide;
  readonly qmp: Qmp;
  /** True after the guest ended by its own will: no failure, and no reason to take over. */
  shutDown = false;
  private readonly stateSocket: string;
  private readonly server: Server;
  private received: ((socket: Socket) => void) | undefined;

  private constructor(side: GuestSide, qmp: Qmp) {
    this.side = side;
    this.qmp = qmp;
    this.stateSocket = `${side.qmp}.state`;
    this.server = createServer((socket) => this.received?.(socket));
    qmp.onEvent(({ event, data }) => {
      if (event === 'SHUTDOWN' && data['guest'] === true) this.shutDown = true;
    });
  }

  /** Throws QmpClosed when it does not run. */
  static async attach(side: GuestSide): Promise<Machine> {
    const machine = new Machine(side, await Qmp.connect(side.qmp));
    try {
      const capabilities = ['x-ignore-shared', 'events'].map((capability) => ({ capability, state: true }));
      await machine.qmp.ask('migrate-set-capabilities', { capabilities }).catch((error: unknown) => {
        if (!(error instanceof QmpRefused)) throw error; // a migration left over is under way: it has them
      });
      await machine.qmp.ask('migrate-set-parameters', { 'max-bandwidth': UNLIMITED_BYTES_PER_S, 'announce-rounds': 0 });
      return machine;
    } catch (error) {
      machine.close();
      throw error;
    }
  }

  async runState(): Promise<RunState> {
    const { status } = (await this.qmp.ask('query-status')) as { status: string };
    return RUN_STATES.find((state) => state === status) ?? 'other';
  }

  async stop(): Promise<void> {
    await this.qmp.ask('stop');
  }

  async cont(): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      try {
        await this.qmp.ask('cont');
        return;
      } catch (error) {
        if (!(error instanceof QmpRefused) || tries === CONT_TRIES_MAX) throw error;
        await sleep(1);
      }
    }
  }

  /** Before the first `saveState`: the socket that the state comes to. */
  async prepareSave(): Promise<void> {
    rmSync(this.stateSocket, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(this.stateSocket, resolve);
    });
  }

  /** The machine without its RAM. Only while it is stopped. */
  async saveState(): Promise<Uint8Array> {
    const stream = new Promise<Uint8Array>((resolve, reject) => (this.received = (socket) => collect(socket, resolve, reject)));
    const outcome = this.migration(SAVE_DEADLINE_MS);
    // Whichever fails first is the error; the other's is the same one seen twice.
    const both = Promise.all([stream, outcome]);
    both.catch(() => undefined);
    await this.qmp.ask('migrate', { uri: `unix:${this.stateSocket}` });
    const [state] = await both;
    return state;
  }

  /** A standby waits for its state from here on. */
  async listen(): Promise<void> {
    rmSync(this.stateSocket, { force: true });
    await this.qmp.ask('migrate-incoming', { uri: `unix:${this.stateSocket}` });
  }

  /** RAM is in place. At the end it is as it was when it was stopped; `cont` lets it run. */
  async restoreState(state: Uint8Array): Promise<void> {
    const outcome = this.migration(SAVE_DEADLINE_MS);
    const socket = createConnection(this.stateSocket);
    const sent = new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.end(state, resolve);
    });
    await Promise.all([sent, outcome]);
  }

  /** Lets go of it; the process stays. */
  close(): void {
    this.server.close();
    this.qmp.close();
  }

  private migration(deadlineMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave: (() => void)[] = [];
      const end = (error?: Error): void => {
        clearTimeout(timer);
        for (const one of leave) one();
        if (error === undefined) resolve();
        else reject(error);
      };
      const timer = setTimeout(() => end(new QmpRefused(`${this.side.qmp}: its state took longer than ${deadlineMs} ms`)), deadlineMs);
      leave.push(this.qmp.onEvent(({ event, data }) => {
        if (event !== 'MIGRATION') return;
        if (data['status'] === 'completed') end();
        if (data['status'] === 'failed' || data['status'] === 'cancelled') end(new QmpRefused(`${this.side.qmp}: its state could not be moved`));
      }));
      leave.push(this.qmp.onEnd((why) => end(new QmpClosed(`${this.side.qmp}: ${why}`))));
    });
  }
}

function collect(socket: Socket, resolve: (state: Uint8Array) => void, reject: (error: Error) => void): void {
  const pieces: Buffer[] = [];
  let bytes = 0;
  socket.on('data', (piece) => {
    pieces.push(piece);
    bytes += piece.length;
    if (bytes > STATE_BYTES_MAX) socket.destroy(new Error(`more than ${STATE_BYTES_MAX} bytes of device state: is its RAM shared?`));
  });
  socket.once('end', () => resolve(Buffer.concat(pieces)));
  socket.once('error', reject);
}

/** The side's process; undefined when it is not there (any more). */
export function pidOf(side: GuestSide): number | undefined {
  try {
    const pid = Number(readFileSync(side.pidFile, 'utf8'));
    const isZombie = /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return !isZombie && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(side.qmp) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Which process that is, among all that ever have the number: kernel's boot, number, start. A guest
 * that was started again is another; one that a reset began anew in its process is not told apart.
 */
export function processOf(side: GuestSide): string | undefined {
  const pid = pidOf(side);
  if (pid === undefined) return undefined;
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}.${pid}.${started}`;
}

/** SIGKILL; what is not there need not be killed. It is sent, not waited for. */
export function kill(side: GuestSide): number | undefined {
  const pid = pidOf(side);
  try {
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
  return pid;
}
