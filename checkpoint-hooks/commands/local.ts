/** Commands that need no daemon: `sluice replay` and `sluice demo`. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import { readGroupFile } from '../group-file.ts';
import { replay, reportText } from '../replay.ts';
import { EXIT, Failure, UsageError, duration } from './context.ts';
import type { Context } from './context.ts';

const IN_FLIGHT_MAX = 1022;

interface ReplayFlags {
  readonly file: string;
  readonly epoch: number;
  readonly commitDelay: number;
  readonly output: 'text' | 'json';
  readonly verbose?: boolean;
}

function positive(text: string): number {
  const ms = duration(text);
  if (ms <= 0) throw new InvalidArgumentError('expected more than 0');
  return ms;
}

async function runReplay(context: Context, path: string, flags: ReplayFlags, command: Command): Promise<void> {
  if (flags.commitDelay / flags.epoch > IN_FLIGHT_MAX) throw new UsageError(`--commit-delay is more than ${IN_FLIGHT_MAX} epochs: Sluice allows no more in flight`);
  const form = flags.output === 'json' || context.isJson(command) ? 'json' : 'text';
  const { spec } = await readGroupFile(flags.file);
  const clock = { epochMs: flags.epoch, commitDelayMs: flags.commitDelay };
  const answer = await replay({ path, spec, clock, verbose: flags.verbose === true ? form : undefined });
  if (answer.kind === 'closed') return;
  if (answer.kind === 'problem') throw new Failure(answer.message);
  context.out(form === 'json' ? JSON.stringify({ ...answer.report, damaged: answer.damaged }) : reportText(answer.report, spec));
  if (answer.damaged) {
    process.stderr.write(`sluice: ${path}: stops in the middle after ${answer.report.frames} frames: cut short, damaged, or of several link types\n`);
    context.exitCode = EXIT.failed;
  }
}

/** The compiled demo, as a process of its own with our terminal; its exit code is ours. */
async function runDemo(context: Context, args: readonly string[]): Promise<void> {
  const source = import.meta.url.endsWith('.ts');
  const path = fileURLToPath(new URL(source ? '../../bench/demo.ts' : '../../bench/demo.js', import.meta.url));
  if (!existsSync(path)) throw new Failure(`${path} is missing: run \`make build\` in the checkout`);
  const child = spawn(process.execPath, [...(source ? ['--import', 'tsx'] : []), path, ...args], { stdio: 'inherit' });
  // Ctrl-C reaches the child by the terminal; we stay to pass on how it ended.
  const pass = (signal: NodeJS.Signals) => (): void => void child.kill(signal);
  const ignore = (): void => undefined;
  const onTerm = pass('SIGTERM');
  process.on('SIGINT', ignore).on('SIGTERM', onTerm);
  context.exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
  });
  process.off('SIGINT', ignore).off('SIGTERM', onTerm);
}

export function addLocal(program: Command, context: Context): void {
  program
    .command('replay <capture>')
    .description('what a group would have passed and held, and until when, during a capture (.pcap, .pcapng)')
    .requiredOption('-f, --file <file>', 'group file; a frame\'s port is that of the NIC whose MAC sent it')
    .addOption(new Option('--epoch <duration>', 'length of an epoch').argParser(positive).default(25, '25ms'))
    .addOption(new Option('--commit-delay <duration>', 'time from a cut to its commit').argParser(duration).default(5, '5ms'))
    .addOption(new Option('-o, --output <form>', 'form of the report').choices(['text', 'json']).default('text'))
    .option('-v, --verbose', 'a line for every frame before the report')
    .addHelpText('after', '\nExample:\n  $ tcpdump -i br0 -w day.pcap\n  $ sluice replay day.pcap -f web.yaml --epoch 25ms --commit-delay 5ms')
    .action((path: string, flags: ReplayFlags, command: Command) => runReplay(context, path, flags, command));
  program
    .command('demo [args...]')
    .description('two members, an outsider, real traffic, in namespaces of its own (needs root)')
    .allowUnknownOption()
    .addHelpText('after', '\nExample:\n  $ sudo sluice demo')
    .action((args: string[]) => runDemo(context, args));
}
