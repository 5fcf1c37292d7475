/** `sluice group …` and `sluice member …`: what a group is made of. */
import type { Command } from 'commander';
import { Option } from 'commander';
import type { GroupView, MemberBody } from '../../proxy/api/contract.ts';
import type { HeldFate } from '../client.ts';
import { bytesText, msText, pairs, table } from '../format.ts';
import { readGroupFile } from '../group-file.ts';
import { UsageError, mustNumber, replyLine, wholeNumber } from './context.ts';
import type { Context } from './context.ts';

const FILE_EXAMPLE = `
Example:
  $ cat web.yaml
  group: web
  commit: explicit
  members:
    - { name: front, port: tap0, mac: "02:00:00:00:00:01" }
    - { name: store, port: tap1, mac: "02:00:00:00:00:02" }
  hold: { bytes: 64MiB, highWater: 0.75 }
  $ sluice group apply -f web.yaml`;

function listText(groups: readonly GroupView[]): string {
  if (groups.length === 0) return 'no groups; make one with: sluice group apply -f GROUP.yaml';
  const rows = groups.map((group) => [
    group.group,
    group.phase,
    String(group.generation),
    String(group.open),
    String(group.committed),
    String(group.released),
    `${group.held.frames} (${bytesText(group.held.bytes)})`,
    String(group.members.length),
  ]);
  const head = ['group', 'phase', 'generation', 'open', 'committed', 'released', 'held', 'members'];
  return table(head, rows, ['left', 'left', 'right', 'right', 'right', 'right', 'right', 'right']);
}

export function groupText(group: GroupView): string {
  const { held, dropped, spec } = group;
  const state = pairs([
    ['group', group.group],
    ['phase', group.phase],
    ['generation', String(group.generation)],
    ['epochs', `open ${group.open}, sealed ${group.sealed}, acked ${group.acked}, committed ${group.committed}, released ${group.released}`],
    ['held', `${held.frames} frames, ${bytesText(held.bytes)}, oldest ${msText(held.oldestMs)}`],
    ['dropped', `overflow ${dropped.overflow}, discarded ${dropped.discarded}, refused ${dropped.refused}`],
    ['commit', spec.commit ?? 'explicit'],
  ]);
  const rows = spec.members.map((member) => {
    const view = group.members.find(({ name }) => name === member.name);
    const nics = member.nics ?? [{ port: member.port ?? '', mac: member.mac ?? '', vlan: member.vlan, addresses: member.addresses }];
    const places = nics.map((nic) => [nic.port, nic.mac, ...(nic.vlan === undefined ? [] : ['vlan', nic.vlan]), ...(nic.addresses ?? [])].join(' ')).join(', ');
    return [member.name, String(view?.open ?? ''), String(view?.acked ?? ''), view?.ready === false ? 'joining' : 'ready', places];
  });
  return `${state}\n\n${table(['member', 'open', 'acked', '', 'nics'], rows, ['left', 'right', 'right'])}`;
}

export function addGroup(program: Command, context: Context): void {
  const group = program.command('group').description('what protection groups there are, and what they are made of');
  group
    .command('apply')
    .description('create or change a group from a file')
    .requiredOption('-f, --file <file>', 'group file (YAML or JSON); - reads standard input')
    .addHelpText('after', FILE_EXAMPLE)
    .action(async (options: { file: string }, command: Command) => {
      const { file } = await readGroupFile(options.file);
      const reply = await context.client(command).apply(file.group, file);
      context.show(command, reply, () => replyLine(reply));
    });
  group
    .command('list')
    .description('all groups, one a line')
    .addHelpText('after', '\nExample:\n  $ sluice group list')
    .action(async (_options: object, command: Command) => {
      const groups = await context.client(command).groups();
      context.show(command, groups, () => listText(groups));
    });
  group
    .command('show <group>')
    .description('one group: its epochs, what it holds, its members')
    .addHelpText('after', '\nExample:\n  $ sluice group show web')
    .action(async (name: string, _options: object, command: Command) => {
      const view = await context.client(command).group(name);
      context.show(command, view, () => groupText(view));
    });
  group
    .command('delete <group>')
    .description('forget an unprotected group')
    .addHelpText('after', '\nExample:\n  $ sluice unprotect web --held release && sluice group delete web')
    .action(async (name: string, _options: object, command: Command) => {
      const reply = await context.client(command).delete(name);
      context.show(command, reply, () => replyLine(reply));
    });
  addMember(group, context);
}

interface JoinOptions {
  readonly port?: string;
  readonly mac?: string;
  readonly vlan?: number;
  readonly nic?: readonly string[];
}

/** `member join|leave`, and the same as `group member add|remove`. */
export function addMember(parent: Command, context: Context): void {
  const member = parent.command('member').description('join or leave a group');
  member
    .command('join <group> <member>')
    .alias('add')
    .description('a VM joins the group (or changes its NICs)')
    .option('--port <port>', 'its bridge port')
    .option('--mac <mac>', 'its MAC address')
    .option('--vlan <vlan>', 'its VLAN, if tagged', wholeNumber)
    .option('--nic <port,mac[,vlan]>', 'one of several NICs; may be given again', (text: string, before: string[] = []) => [...before, text])
    .addHelpText('after', '\nExample:\n  $ sluice member join web cache --port tap3 --mac 02:00:00:00:00:03')
    .action(async (group: string, name: string, options: JoinOptions, command: Command) => {
      const reply = await context.client(command).join(group, name, memberBody(options));
      context.show(command, reply, () => replyLine(reply));
    });
  member
    .command('leave <group> <member>')
    .alias('remove')
    .description('a VM leaves the group; a protected one must say what becomes of its held frames')
    .addOption(new Option('--held <release|discard>', 'what becomes of its held frames').choices(['release', 'discard']))
    .addHelpText('after', '\nExample:\n  $ sluice member leave web cache --held discard')
    .action(async (group: string, name: string, options: { held?: HeldFate }, command: Command) => {
      const reply = await context.client(command).leave(group, name, options.held);
      context.show(command, reply, () => replyLine(reply));
    });
}

function memberBody(options: JoinOptions): MemberBody {
  const single = options.port !== undefined || options.mac !== undefined || options.vlan !== undefined;
  if (options.nic !== undefined) {
    if (single) throw new UsageError('give either --port and --mac, or --nic, not both');
    return { nics: options.nic.map(nicOf) };
  }
  if (options.port === undefined || options.mac === undefined) throw new UsageError('a member needs --port and --mac, or one --nic port,mac[,vlan] for each NIC');
  return { port: options.port, mac: options.mac, ...(options.vlan === undefined ? {} : { vlan: options.vlan }) };
}

function nicOf(text: string): { port: string; mac: string; vlan?: number } {
  const [port, mac, vlan, more] = text.split(',');
  if (port === undefined || mac === undefined || more !== undefined) throw new UsageError(`--nic ${text}: expected port,mac or port,mac,vlan`);
  return { port, mac, ...(vlan === undefined ? {} : { vlan: mustNumber(vlan, 'vlan') }) };
}
