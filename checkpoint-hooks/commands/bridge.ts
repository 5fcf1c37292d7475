/** `sluice attach` and `sluice detach`: which bridges sluiced may protect VMs on. As root, on the daemon's machine. */
import type { Command } from 'commander';
import type { GroupView } from '../../proxy/api/contract.ts';
import { BRIDGES_DEFAULT, managerOf, note, portsOf, strike } from '../bridge.ts';
import type { PortView } from '../bridge.ts';
import { Unreachable } from '../client.ts';
import { CHECKS } from '../doctor-checks.ts';
import { realSystem } from '../doctor-system.ts';
import { examine, look } from '../doctor.ts';
import type { Finding, Link, System } from '../doctor.ts';
import { table } from '../format.ts';
import { EXIT, Failure, targetOf, UsageError } from './context.ts';
import type { Context, GlobalOptions } from './context.ts';
import { findingsText } from './doctor.ts';

/** Not about the machine, but about what runs on it now. */
const NOT_ASKED: ReadonlySet<string> = new Set(['daemon', 'leftovers', 'group-ports']);

interface Options {
  readonly bridges: string;
  readonly force?: boolean;
}

/** undefined where no daemon answers: then nobody is known to be a member. */
async function groupsOf(context: Context, command: Command): Promise<readonly GroupView[] | undefined> {
  try {
    return await context.client(command).groups();
  } catch (error) {
    if (error instanceof Unreachable) return undefined;
    throw error;
  }
}

async function linksOf(system: System): Promise<readonly Link[]> {
  const links = await system.links();
  if (links.kind === 'seen') return links.value;
  throw new Failure(`the devices can't be seen (${links.kind === 'hidden' ? links.reason : 'no `ip` command'}); run it as root, with iproute2 installed`);
}

function mustBeName(bridge: string): void {
  if (!/^(?!\.)[^\s/:]{0,14}[^\s/:~]$/.test(bridge)) throw new UsageError(`"${bridge}" is not the name of a bridge that can be attached`);
}

function written<T>(job: () => T, directory: string): T {
  try {
    return job();
  } catch (error) {
    throw new Failure(`${directory} can't be written (${(error as NodeJS.ErrnoException).code ?? String(error)}); run it as root, or name another directory with --bridges`);
  }
}

function portsText(ports: readonly PortView[]): string {
  const what = ({ group, member, isProtected }: PortView): string =>
    (group === undefined ? 'no member; guarded while a group here is protected' : `member ${member} of ${group}${isProtected === true ? ', protected' : ', not protected'}`);
  return table(['port', 'kind', '', 'what it is to sluiced'], ports.map((port) => [port.port, port.kind, port.up ? 'up' : 'down', what(port)]));
}

async function attach(context: Context, bridge: string, options: Options, command: Command): Promise<void> {
  mustBeName(bridge);
  const system = realSystem(targetOf(command.optsWithGlobals<GlobalOptions>()));
  const links = await linksOf(system);
  if (!links.some(({ name, kind }) => name === bridge && kind === 'bridge')) {
    throw new Failure(`${bridge} is not a bridge of this network namespace; there are: ${links.filter(({ kind }) => kind === 'bridge').map(({ name }) => name).join(', ') || 'none'}`);
  }
  const ports = portsOf(bridge, links, (await groupsOf(context, command)) ?? []);
  const facts = await look(system, { ports: ports.map(({ port }) => port), wanted: undefined, bpffs: '/sys/fs/bpf' });
  const findings = examine(facts, CHECKS.filter(({ name }) => !NOT_ASKED.has(name))).filter(({ level }) => level !== 'ok');
  const isUnfit = findings.some(({ level }) => level === 'fail');
  const outcome = isUnfit && options.force !== true ? 'refused' : written(() => note(options.bridges, bridge), options.bridges) ? 'attached' : 'already attached';
  const manager = await managerOf(bridge, system);
  context.show(command, { bridge, outcome, manager, ports, findings }, () => attachText(bridge, outcome, manager, ports, findings));
  if (outcome === 'refused') context.exitCode = EXIT.failed;
}

function attachText(bridge: string, outcome: string, manager: string, ports: readonly PortView[], findings: readonly Finding[]): string {
  return [
    outcome === 'refused' ? `${bridge} was not attached: this machine is not fit (see fail below; --force attaches it all the same)` : `${bridge}: ${outcome}. Managed by ${manager}; nothing of it was changed.`,
    ...(ports.length === 0 ? ['It has no ports.'] : ['', portsText(ports)]),
    ...(findings.length === 0 ? [] : ['', findingsText(findings)]),
    ...(outcome === 'refused' ? [] : ['', 'Next: sluice group apply -f GROUP.yaml && sluice protect GROUP']),
  ].join('\n');
}

async function detach(context: Context, bridge: string, options: Options, command: Command): Promise<void> {
  mustBeName(bridge);
  const groups = await groupsOf(context, command);
  const system = realSystem(targetOf(command.optsWithGlobals<GlobalOptions>()));
  const busy = groups === undefined ? undefined : portsOf(bridge, await linksOf(system), groups).find(({ isProtected }) => isProtected === true);
  if (busy !== undefined && options.force !== true) {
    throw new Failure(`group ${busy.group} is protected on ${bridge}; sluice unprotect ${busy.group} --held release (or discard) first`);
  }
  const outcome = written(() => strike(options.bridges, bridge), options.bridges) ? 'detached' : 'was not attached';
  const unasked = groups === undefined ? '\nNo daemon answered: what is protected in the kernel stays protected.' : '';
  context.show(command, { bridge, outcome, daemon: groups !== undefined }, () => `${bridge}: ${outcome}.${unasked}`);
}

export function addBridge(program: Command, context: Context): void {
  program
    .command('attach <bridge>')
    .description('sluiced may protect VMs on this bridge, and on no other that is not attached; looks whether it is fit, changes nothing of it')
    .option('--bridges <dir>', 'where attachments are noted (`bridges` of the daemon\'s settings)', BRIDGES_DEFAULT)
    .option('--force', 'also where the doctor finds the machine unfit')
    .addHelpText('after', '\nExample:\n  $ sudo sluice attach br0')
    .action((bridge: string, options: Options, command: Command) => attach(context, bridge, options, command));
  program
    .command('detach <bridge>')
    .description('undoes attach; refused while a group is protected on it. With the last one, every bridge may be used again')
    .option('--bridges <dir>', 'where attachments are noted (`bridges` of the daemon\'s settings)', BRIDGES_DEFAULT)
    .option('--force', 'also while a group is protected there: it stays protected')
    .addHelpText('after', '\nExample:\n  $ sudo sluice detach br0')
    .action((bridge: string, options: Options, command: Command) => detach(context, bridge, options, command));
}
