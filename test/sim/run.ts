/**
 * A whole run from one seed: an engine that mostly knows what it does, members that talk to each
 * other and to the outside, a plane that works when it likes, crashes between any two effects.
 */
import type { Command, GroupSpec, GroupState, MemberSpec } from '../../proxy/core/types.ts';
import { epoch, generation } from '../../proxy/core/types.ts';
import { EdgeError } from '../../proxy/ports.ts';
import type { JournalRecord } from '../../proxy/ports.ts';
import type { Answer } from '../../proxy/control/control.ts';
import { Daemon } from './daemon.ts';
import type { Mutation } from './daemon.ts';
import { Kernel } from './kernel.ts';
import { Oracle } from './oracle.ts';
import { Random } from './random.ts';

export interface RunOptions {
  readonly seed: number;
  readonly steps: number;
  readonly mutation?: Mutation;
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const memberSpec = (name: string): MemberSpec => ({ name, nics: [{ port: `tap${name}`, mac: `02:00:00:00:00:0${'abcd'.indexOf(name)}`, vlan: 0 }] });
const spec = (names: readonly string[], commit: GroupSpec['commit']): GroupSpec => ({
  group: 'g', commit, members: names.map(memberSpec), hold: { bytes: 1 << 20, highWater: 0.75 }, foreignSource: 'hold', intraPath: 'redirect',
});

/** Each member has two ports, `tapa` and `tapa.1`: who is at one is moved to the other. */
const portOf = ({ nics }: MemberSpec): string => nics[0]?.port ?? '';
const moved = (member: MemberSpec): MemberSpec => {
  const port = portOf(member);
  return { ...member, nics: member.nics.map((nic) => ({ ...nic, port: port.endsWith('.1') ? port.slice(0, -2) : `${port}.1` })) };
};

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));

export class Run {
  readonly oracle = new Oracle();
  readonly #random: Random;
  readonly #kernel = new Kernel(this.oracle);
  readonly #disk = new Map<string, JournalRecord>();
  readonly #mutation: Mutation;
  #daemon: Daemon;
  #life = 0;
  #frames = 0;
  /** A command is being answered. */
  #asking = false;
  /** VMs stand still until the group has gone back. */
  #mustRestore: number | undefined;
  /** Where the last takeover that moved its members found them: who is there may go on sending. */
  #ghosts = new Map<string, string>();
  /** That takeover is being answered. */
  #moving = false;
  /** The ghosts' execution has ended. */
  #areGhosts = false;
  #failure: Error | undefined;
  readonly answers = new Map<string, number>();

  constructor({ seed, mutation = 'none' }: RunOptions) {
    this.#random = new Random(seed);
    this.#mutation = mutation;
    this.#daemon = this.#born();
  }

  async go(steps: number): Promise<void> {
    for (let n = 0; n < steps; n += 1) {
      this.oracle.now += 1;
      this.#act();
      await turn();
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#daemon.dead) await this.#crash();
      if (n % 500 === 499) this.oracle.forgetOld();
      if (n % 2000 === 1999) await this.#quiet();
    }
    await this.#quiet();
  }

  #born(): Daemon {
    const daemon = new Daemon(this.#kernel, this.#random, this.#disk, this.#mutation);
    daemon.control.onFatal((reason) => {
      if (reason.name !== 'Killed') this.#failure = reason;
    });
    return daemon;
  }

  async #crash(): Promise<void> {
    this.#daemon.dead = true;
    this.#moving = false;
    this.#life += 1;
    this.#kernel.processDied();
    this.oracle.crashed(this.#life);
    this.#daemon = this.#born();
    this.#asking = true;
    const started = this.#daemon.control.start([...this.#disk.values()]).then(() => {
      this.#asking = false;
      if (this.#daemon.control.missing().length === 0) this.#adopt();
    }, (error: unknown) => {
      if (!(error instanceof Error && error.name === 'Killed')) this.#failure = asError(error);
    });
    void started;
    await turn();
  }

  /** The engine asks what is: nothing is in flight, so this is certain. */
  #adopt(): void {
    const state = this.#state;
    for (const member of state?.spec.members ?? []) if (this.#ghosts.get(member.name) === portOf(member)) this.#ghosts.delete(member.name); // the port is a member's (again)
    if (state?.phase !== 'protected') {
      this.oracle.ended();
      this.#mustRestore = undefined;
      return;
    }
    if (!this.oracle.watching) this.oracle.beginProtect(state.members.map(({ name }) => name), state.committed)();
    this.oracle.setMembers(state.members.map(({ name }) => name));
    for (const { name, sealed } of state.members) {
      if (this.oracle.members.includes(name)) this.oracle.setOpen(name, sealed + 1);
      else this.oracle.joined(name, sealed + 1);
    }
  }

  get #state(): GroupState | undefined {
    return this.#daemon.control.get('g');
  }

  #act(): void {
    const { ring } = this.#kernel;
    const daemon = this.#daemon;
    const dice = this.#random.below(1000);
    if (dice < 300) this.#send();
    else if (dice < 330) this.#haunt();
    else if (dice < 500) this.#kernel.arrive();
    else if (dice < 620) this.#some(daemon.orders, true);
    else if (dice < 760) ring?.emitOne();
    else if (dice < 860) this.#some(daemon.slow, false);
    else if (dice < 960) this.#ask();
    else if (dice < 985) this.#report();
    else if (dice < 995) this.#some(daemon.timers, false);
    else if (dice < 996) this.#losePair();
    else if (dice < 997) daemon.failing = daemon.failing > 0 ? 0 : 0.2;
    else if (dice < 999) daemon.killIn = Math.min(daemon.killIn, this.#random.below(8));
    else daemon.dead = this.#random.chance(0.5);
  }

  /** What was held and recorded is lost, as after a crash; the daemon goes on. The gate says it once for each pair. */
  #losePair(): void {
    if (!this.#kernel.cells.attached || this.#random.chance(0.5) || !this.#kernel.pairThere) return;
    this.#life += 1;
    this.#kernel.pairLost();
    this.oracle.crashed(this.#life);
    this.oracle.counts.pairsLost += 1;
    if (this.#daemon.attached) this.#daemon.control.holdLost(0);
  }

  #some(from: (() => void)[], inOrder: boolean): void {
    const [run] = from.splice(inOrder ? 0 : this.#random.below(Math.max(1, from.length)), 1);
    run?.();
  }

  #report(): void {
    const colour = this.#kernel.ring?.releasedFact();
    if (colour !== undefined) this.#daemon.report(colour);
  }

  #send(): void {
    if (this.#mustRestore !== undefined) return;
    const from = this.#random.pick(['a', 'b', 'c', 'd']);
    const to = this.#random.pick(['out', 'a', 'b', 'c', 'd'].filter((name) => name !== from));
    this.#kernel.send(this.oracle.sent((this.#frames += 1), from, to, this.#life));
  }

  /**
   * A member of the dead execution sends at its old port. While the takeover is answered it is still
   * the member; an old port that never ceased to be the group's is the living one's, who stands still.
   */
  #haunt(): void {
    const [from, port] = this.#random.pick([...this.#ghosts, ['', ''] as const]);
    const now = this.#state?.spec.members.find(({ name }) => name === from);
    if (now === undefined || (!this.#moving && portOf(now) === port)) return;
    const to = this.#random.pick(['out', 'a', 'b', 'c', 'd'].filter((name) => name !== from));
    const id = (this.#frames += 1);
    const frame = this.#areGhosts ? this.oracle.maybeGhost(id, from, to, this.#life) : this.oracle.sent(id, from, to, this.#life);
    if (frame !== undefined) this.#kernel.send(frame, port);
  }

  #ask(): void {
    if (this.#asking) return;
    const command = this.#choose(this.#state);
    this.#asking = true;
    const settle = this.#begin(command);
    this.#daemon.control.submit('g', command).then(
      (answer) => {
        this.#answered(command, answer, settle);
      },
      (error: unknown) => {
        this.#failed(error);
      },
    ).catch((error: unknown) => {
      this.#failure ??= asError(error);
    });
  }

  #choose(state: GroupState | undefined): Command {
    const random = this.#random;
    if (state === undefined) return { kind: 'apply', spec: spec(['a', 'b', 'c'], random.pick(['explicit', 'acks'])) };
    const g = state.generation;
    const { committed, sealed, acked } = state;
    const between = (low: number, high: number) => epoch(low + random.below(Math.max(1, high - low + 1)));
    if (this.#mustRestore !== undefined && state.phase === 'protected') {
      const top = state.spec.commit === 'acks' ? acked : sealed;
      return { kind: 'rollback', generation: g, epoch: epoch(Math.max(committed, Math.min(this.#mustRestore, top))) };
    }
    const names = state.members.map(({ name }) => name);
    const dice = random.below(1000);
    if (state.phase === 'idle' && dice < 900) {
      if (dice < 80) return { kind: 'takeover', generation: generation(g + 1 + random.below(2)), epoch: epoch(random.below(50)) };
      if (dice < 160) return { kind: 'apply', spec: spec(random.pick([['a', 'b'], ['a', 'b', 'c'], ['b', 'c', 'a', 'd']]), random.pick(['explicit', 'acks'])) };
      return { kind: 'protect' };
    }
    const member = random.pick(names);
    const open = (state.members.find(({ name }) => name === member)?.sealed ?? 0) + 1;
    if (dice < 300) return { kind: 'cut', generation: g, epoch: epoch(sealed + 1) };
    if (dice < 450) return { kind: 'cut', generation: g, epoch: epoch(open), member };
    if (dice < 560) return { kind: 'ack', generation: g, epoch: between(committed, sealed) };
    if (dice < 640) return { kind: 'ack', generation: g, epoch: between(committed, open - 1), members: [member] };
    if (dice < 800) return { kind: 'commit', generation: g, epoch: between(committed, state.spec.commit === 'acks' ? acked : sealed) };
    if (dice < 860) return { kind: 'rollback', generation: g, epoch: between(committed, state.spec.commit === 'acks' ? acked : sealed) };
    if (dice < 875) {
      const takeover = { kind: 'takeover', generation: generation(g + 1), epoch: between(committed, state.spec.commit === 'acks' ? acked : sealed) } as const;
      return random.chance(0.7) ? { ...takeover, members: state.spec.members.map(moved) } : takeover;
    }
    if (dice < 890) return { kind: 'unprotect', generation: g, held: random.pick(['release', 'discard']) };
    if (dice < 910) return { kind: 'join', member: memberSpec(random.pick(['a', 'b', 'c', 'd'])) };
    if (dice < 930) return { kind: 'leave', member, held: random.pick(['release', 'discard']) };
    if (dice < 940) return { kind: 'apply', spec: { ...state.spec, commit: random.pick(['explicit', 'acks']) } };
    if (dice < 945) return { kind: 'delete' };
    return this.#wrong(state, member);
  }

  /** Late, doubled, fenced or out of order. */
  #wrong(state: GroupState, member: string): Command {
    const random = this.#random;
    const g = generation(Math.max(1, state.generation - 1 + random.below(3)));
    const e = epoch(Math.max(0, state.sealed - 3 + random.below(7)));
    return random.pick<Command>([
      { kind: 'cut', generation: g, epoch: e },
      { kind: 'cut', generation: g, epoch: e, member },
      { kind: 'ack', generation: g, epoch: e, members: [member] },
      { kind: 'commit', generation: g, epoch: e },
      { kind: 'takeover', generation: g, epoch: e },
      { kind: 'protect', generation: g },
      { kind: 'delete' },
    ]);
  }

  /** Tells the oracle what is being asked; returns what to do when it is accepted. */
  #begin(command: Command): { accept: () => void; deny: () => void } {
    const { oracle } = this;
    const deny = oracle.snapshot();
    const names = this.#state?.members.map(({ name }) => name) ?? [];
    const protectedNow = this.#state?.phase === 'protected';
    const follow = (): void => {
      oracle.followAcks(names);
    };
    const none = (): void => undefined;
    switch (command.kind) {
      case 'protect': return { accept: oracle.beginProtect(names, 0), deny };
      case 'cut': return { accept: oracle.beginCut(command.epoch, command.member), deny };
      case 'commit': oracle.beginCommit(command.epoch); return { accept: none, deny };
      case 'ack': oracle.beginAck(command.epoch, command.members ?? names); follow(); return { accept: none, deny };
      case 'apply': follow(); return { accept: none, deny };
      case 'unprotect': oracle.beginUnprotect(command.held === 'release'); return { accept: none, deny };
      case 'leave':
        if (protectedNow && names.length > 1) oracle.beginLeave(command.member, command.held === 'release');
        oracle.followAcks(names.filter((name) => name !== command.member));
        return { accept: none, deny };
      case 'rollback':
      case 'takeover':
        if (!protectedNow) return { accept: oracle.beginProtect(names, command.epoch), deny };
        if (command.kind === 'takeover' && command.members !== undefined) this.#leavePorts();
        if (command.kind === 'takeover' || command.generation === this.#state?.generation) this.#mustRestore = command.epoch;
        oracle.beginRestore(command.epoch);
        return {
          accept: () => {
            oracle.restored(command.epoch, this.#life);
            this.#areGhosts = true;
            if (command.kind === 'takeover' && command.members !== undefined) oracle.counts.moves += 1;
          },
          deny,
        };
      case 'join':
      case 'delete': return { accept: none, deny };
    }
  }

  #leavePorts(): void {
    this.#ghosts = new Map((this.#state?.spec.members ?? []).map((member) => [member.name, portOf(member)]));
    this.#areGhosts = false;
    this.#moving = true;
  }

  #answered(command: Command, { reply }: Answer, settle: { accept: () => void; deny: () => void }): void {
    const outcome = reply.outcome === 'denied' ? reply.denial.code : reply.outcome;
    this.answers.set(`${command.kind} ${outcome}`, (this.answers.get(`${command.kind} ${outcome}`) ?? 0) + 1);
    if (reply.outcome === 'accepted') settle.accept();
    else settle.deny();
    if (command.kind === 'rollback' || command.kind === 'takeover') this.#mustRestore = undefined;
    this.#asking = false;
    this.#moving = false;
    this.#adopt();
  }

  #failed(error: unknown): void {
    this.#moving = false;
    if (this.#daemon.dead || (error instanceof Error && error.name === 'Killed')) return;
    if (!(error instanceof EdgeError)) throw error;
    this.answers.set(error.code, (this.answers.get(error.code) ?? 0) + 1);
    this.#asking = false;
    // What is owed may be half done: the engine asks again before it believes anything.
    if (this.#daemon.control.missing().length === 0) this.#adopt();
  }

  /** Everything that can happen happens, nothing new is asked, nothing fails. */
  async #quiet(): Promise<void> {
    const daemon = this.#daemon;
    daemon.failing = 0;
    daemon.killIn = Infinity;
    let still = 0;
    for (let n = 0; n < 100_000 && still < 3; n += 1) {
      const busy = daemon.orders.length + daemon.slow.length + daemon.timers.length + this.#kernel.wire.length > 0;
      this.#some(daemon.orders, true);
      this.#some(daemon.slow, false);
      this.#some(daemon.timers, false);
      this.#kernel.arrive();
      const emitted = this.#kernel.ring?.emitOne() ?? false;
      this.#report();
      await turn();
      if (this.#failure !== undefined) throw this.#failure;
      still = busy || emitted || this.#asking ? 0 : still + 1;
    }
    const state = this.#state;
    if (this.#asking) throw new Error(`nobody answered; ${JSON.stringify(state)}`);
    if (state?.phase === 'draining') throw new Error('draining never ends');
    if (state?.phase === 'protected') {
      if (state.released !== state.committed) throw new Error(`released stays at ${state.released}, committed is ${state.committed}`);
      this.oracle.checkQuiet(state.committed, this.#life, state.members.flatMap(({ name, ready }) => (ready ? [] : [name])));
    }
  }
}

export async function simulate(options: RunOptions): Promise<Run> {
  const run = new Run(options);
  await run.go(options.steps);
  return run;
}
