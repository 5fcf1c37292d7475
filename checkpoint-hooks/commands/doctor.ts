/** `sluice doctor`: needs no daemon and no root. Exit 1 if anything is a `fail`. */
import { Option } from 'commander';
import type { Command } from 'commander';
import { examine, look } from '../doctor.ts';
import type { Finding, PortWanted } from '../doctor.ts';
import { CHECKS } from '../doctor-checks.ts';
import { CHECKS_PCAP } from '../doctor-checks-pcap.ts';
import { realSystem } from '../doctor-system.ts';
import { readGroupFile } from '../group-file.ts';
import type { GroupSpec } from '../group-file.ts';
import { EXIT, targetOf } from './context.ts';
import type { Context, GlobalOptions } from './context.ts';

const BPFFS = '/sys/fs/bpf';

export function wantedPorts(spec: GroupSpec): readonly PortWanted[] {
  return spec.members.flatMap(({ name, nics }) => nics.map(({ port, mac }) => ({ member: name, port, mac })));
}

export function findingsText(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  return findings
    .map(({ level, check, text, fix }) => `${level.padEnd(4)}  ${check.padEnd(width)}  ${text}${fix === undefined ? '' : ` | fix: ${fix}`}`)
    .join('\n');
}

export function addDoctor(program: Command, context: Context): void {
  program
    .command('doctor [ports...]')
    .description('is this machine fit to hold frames? Each finding with its fix')
    .option('-f, --file <file>', 'group file whose ports are looked at')
    .addOption(new Option('--plane <plane>', 'the data plane it is asked about').choices(['ebpf', 'pcap']).default('ebpf'))
    .option('--bpffs <dir>', 'where BPF programs are pinned', BPFFS)
    .addHelpText('after', '\nExample:\n  $ sluice doctor -f web.yaml eth0\n  $ sudo ip netns exec vms sluice doctor\n  $ sluice doctor --plane pcap tap0 tap1 eth1')
    .action(async (ports: string[], options: { file?: string; bpffs: string; plane: 'ebpf' | 'pcap' }, command: Command) => {
      const wanted = options.file === undefined ? undefined : wantedPorts((await readGroupFile(options.file)).spec);
      const system = realSystem(targetOf(command.optsWithGlobals<GlobalOptions>()));
      const findings = examine(await look(system, { ports, wanted, bpffs: options.bpffs }), options.plane === 'pcap' ? CHECKS_PCAP : CHECKS);
      context.show(command, findings, () => findingsText(findings));
      if (findings.some(({ level }) => level === 'fail')) context.exitCode = EXIT.failed;
    });
}
