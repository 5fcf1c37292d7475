/**
 * A helper program that takes commands as lines on its standard input: `tc -batch`, the NFQUEUE
 * holder. Its end before `close` is an error of the next command, with what it said.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { namespacePath, sleep } from '../bed/commands.ts';

/** Also under emulation on a loaded machine. */
const ANSWER_MS_MAX = 15_000;

export class LineProgram {
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #answers: string[] = [];
  #said = '';
  #rest = '';

  constructor(namespace: string, program: string, args: readonly string[]) {
    this.#name = program;
    this.#child = spawn('nsenter', [`--net=${namespacePath(namespace)}`, program, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stderr?.on('data', (chunk: Buffer) => (this.#said += chunk.toString()));
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      const lines = (this.#rest + chunk.toString()).split('\n');
      this.#rest = lines.pop() ?? '';
      this.#answers.push(...lines);
    });
    this.#child.stdin?.on('error', () => undefined); // its end is seen below
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Nobody answers: a refusal is seen at the next command. */
  tell(line: string): void {
    this.#mustRun();
    this.#child.stdin?.write(line + '\n');
  }

  async ask(line: string): Promise<string> {
    this.tell(line);
    for (const deadline = Date.now() + ANSWER_MS_MAX; ; await sleep(0)) {
      const answer = this.#answers.shift();
      if (answer !== undefined) return answer;
      this.#mustRun();
      if (Date.now() > deadline) throw new Error(`${this.#name} does not answer "${line}": ${this.#said}`);
    }
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }

  #mustRun(): void {
    if (this.#said !== '' || this.#child.exitCode !== null) throw new Error(`${this.#name}: ${this.#said || `ended with ${this.#child.exitCode}`}`);
  }
}
