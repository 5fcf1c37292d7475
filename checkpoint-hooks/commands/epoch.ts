/**
 * `sluice protect | cut | ack | commit | rollback | takeover | unprotect`: the commands of a
 * checkpoint engine, by hand.
 *
 * What is left out is asked of the daemon first: the present generation; for cut the open epoch
 * (of the member, if one is named); for commit and ack the newest sealed one. Between the question
 * and the command another engine may have acted: the daemon then refuses, and nothing is done.
 */
import type { Command } from 'commander';
import { Option } from 'commander';
import type { CommandReply, GroupView } from '../../proxy/api/contract.ts';
import type { HeldFate } from '../client.ts';
import { Failure, UsageError, duration, mustNumber, replyLine, wholeNumber } from './context.ts';
import type { Context } from './context.ts';

interface EpochOptions {
  readonly epoch?: number;
  readonly generation?: number;
}
type EpochAction<O> = (run: { group: string; options: O & EpochOptions; command: Command }) => Promise<CommandReply>;

const EPOCH_HELP = 'epoch (the same as the second argument)';

/** A subcommand `name <group> [epoch]` that prints the group's state after it. */
function epochCommand<O extends object>(parent: Command, context: Context, name: string, description: string, example: string, action: EpochAction<O>): Command {
  return parent
    .command(`${name} <group> [epoch]`)
    .description(description)
    .option('--epoch <epoch>', EPOCH_HELP, wholeNumber)
    .option('--generation <generation>', 'generation; the present one if left out', wholeNumber)
    .addHelpText('after', `\nExample:\n  $ ${example}`)
    .action(async (group: string, text: string | undefined, options: O & EpochOptions, command: Command) => {
      const given = text === undefined ? options.epoch : mustNumber(text, 'epoch');
      const reply = await action({ group, options: given === undefined ? options : { ...options, epoch: given }, command });
      context.show(command, reply, () => replyLine(reply));
    });
}

/** Both numbers, asked for only where one is missing. */
async function complete(
  context: Context,
  run: { group: string; options: EpochOptions; command: Command },
  missing: (view: GroupView) => number,
): Promise<{ generation: number; epoch: number }> {
  const { epoch, generation } = run.options;
  if (epoch !== undefined && generation !== undefined) return { generation, epoch };
  const view = await context.client(run.command).group(run.group);
  if (view.generation === 0) throw new Failure(`group ${run.group} was never protected; protect it first: sluice protect ${run.group}`);
  return { generation: generation ?? view.generation, epoch: epoch ?? missing(view) };
}

/** Going back is never guessed. */
function mustSayEpoch(name: string, options: EpochOptions): number {
  if (options.epoch !== undefined) return options.epoch;
  throw new UsageError(`${name} needs an epoch: sluice ${name} GROUP EPOCH; \`sluice group show GROUP\` lists them`);
}

/** Names split at commas; the option may be given again. */
const names = (text: string, before: readonly string[] = []): string[] => [...before, ...text.split(',').filter((name) => name !== '')];

function openOf(view: GroupView, member: string | undefined): number {
  if (member === undefined) return view.open;
  const found = view.members.find(({ name }) => name === member);
  if (found === undefined) throw new Failure(`group ${view.group} has no member "${member}"; it has ${view.members.map(({ name }) => name).join(', ')}`);
  return found.open;
}

function addProtect(program: Command, context: Context): void {
  program
    .command('protect <group>')
    .description('hold from now on; epoch 1 opens')
    .option('--generation <generation>', 'begin with this generation', wholeNumber)
    .addHelpText('after', '\nExample:\n  $ sluice protect web')
    .action(async (group: string, options: { generation?: number }, command: Command) => {
      const reply = await context.client(command).protect(group, options.generation === undefined ? {} : { generation: options.generation });
      context.show(command, reply, () => replyLine(reply));
    });
}

function addUnprotect(program: Command, context: Context): void {
  program
    .command('unprotect <group>')
    .description('stop holding, after saying what becomes of the frames still held')
    .addOption(new Option('--held <release|discard>', 'what becomes of the held frames').choices(['release', 'discard']).makeOptionMandatory())
    .option('--generation <generation>', 'generation; the present one if left out', wholeNumber)
    .addHelpText('after', '\nExample:\n  $ sluice unprotect web --held release')
    .action(async (group: string, options: { held: HeldFate; generation?: number }, command: Command) => {
      const { generation } = await complete(context, { group, options: { ...options, epoch: 0 }, command }, () => 0);
      const reply = await context.client(command).unprotect(group, { generation, held: options.held });
      context.show(command, reply, () => replyLine(reply));
    });
}

export function addEpoch(program: Command, context: Context): void {
  addProtect(program, context);
  epochCommand<{ member?: string }>(program, context, 'cut', 'seal the open epoch and open the next', 'sluice cut web', async (run) => {
    const { member } = run.options;
    const body = await complete(context, run, (view) => openOf(view, member));
    return context.client(run.command).cut(run.group, { ...body, ...(member === undefined ? {} : { member }) });
  }).option('--member <name>', 'cut this member alone');
  epochCommand<{ members?: string[] }>(program, context, 'ack', 'these members\' checkpoints of the epoch are durable', 'sluice ack web 7 --members front,store', async (run) => {
    const { members } = run.options;
    const body = await complete(context, run, (view) => view.sealed);
    return context.client(run.command).ack(run.group, { ...body, ...(members === undefined ? {} : { members }) });
  }).option('--members <names>', 'member names, with commas; all if left out', names);
  epochCommand<{ wait?: boolean | number }>(program, context, 'commit', 'commit the epoch and those before it; their frames leave', 'sluice commit web 7 --wait', async (run) => {
    const { wait } = run.options;
    const body = await complete(context, run, (view) => view.sealed);
    return context.client(run.command).commit(run.group, body, wait === undefined ? {} : { wait: true, ...(typeof wait === 'number' ? { waitMs: Math.ceil(wait) } : {}) });
  }).option('--wait [duration]', 'answer when its last frame was handed to the kernel (at most 10s, or as given)', duration);
  epochCommand<object>(program, context, 'rollback', 'the group restored this epoch in place: later frames are discarded', 'sluice rollback web 5', async (run) => {
    const epoch = mustSayEpoch('rollback', run.options);
    const body = await complete(context, run, () => epoch);
    return context.client(run.command).rollback(run.group, body);
  });
  epochCommand<object>(program, context, 'takeover', 'go on from this epoch with a higher generation (the next one if left out)', 'sluice takeover web 5', async (run) => {
    const epoch = mustSayEpoch('takeover', run.options);
    const client = context.client(run.command);
    const generation = run.options.generation ?? (await client.group(run.group)).generation + 1;
    return client.takeover(run.group, { generation, epoch });
  });
  addUnprotect(program, context);
}
