/** `sluice engine qemu`: its flags. What it does (qemu-run.ts) is loaded by who asks for it, not by every command. */
import { Option } from 'commander';
import type { Command } from 'commander';
import { duration, wholeNumber } from './context.ts';
import type { Context } from './context.ts';
import type { QemuFlags } from './qemu-run.ts';
import { positive } from './running.ts';

export function addQemu(engine: Command, context: Context): void {
  engine
    .command('qemu')
    .description('checkpoint a group of running QEMU guests; go on at their other sides when they die')
    .requiredOption('-f, --file <path>', 'the guests: names, memory, nics, and two sides each (YAML or JSON)')
    .requiredOption('--store <directory>', 'where checkpoints are kept: stands for the backup')
    .addOption(new Option('--interval <duration>', 'least time between checkpoints, when the group has output').argParser(duration).default(50, '50ms'))
    .addOption(new Option('--idle-interval <duration>', 'time between checkpoints of a silent group').argParser(positive).default(1000, '1s'))
    .addOption(new Option('--commit-delay <duration>', 'time from a durable checkpoint to its commit').argParser(duration).default(0, '0ms'))
    .addOption(new Option('--heartbeat <duration>', 'time between two looks at each guest').argParser(positive).default(100, '100ms'))
    .addOption(new Option('--silence <duration>', 'a guest that does not answer for so long is dead').argParser(positive).default(1000, '1s'))
    .option('--no-standby', 'keep no hot standbys: a takeover then fills the other sides from the store')
    .option('--no-replay', 'what outsiders sent since the checkpoint is not given to the new sides: they repeat it when they miss an answer')
    .option('--checkpoints <count>', 'end after so many checkpoints', wholeNumber)
    .addOption(new Option('--give-up-after <duration>', 'end when the daemon was silent for so long').argParser(duration).default(10_000, '10s'))
    .addHelpText('after', '\nExample:\n  $ sluice engine qemu -f guests.yaml --store /var/lib/sluice/web --interval 50ms')
    .action(async (flags: QemuFlags, command: Command) => (await import('./qemu-run.ts')).protect(context, flags, command));
}
