/** `sluice doctor`: needs no daemon and no root. Exit 1 if anything is a `fail`. */
import { hostname } from 'node:os';
import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import { examine, look } from '../doctor.ts';
import type { Finding, PortWanted, RoadWanted } from '../doctor.ts';
import { CHECKS } from '../doctor-checks.ts';
import { CHECKS_PCAP } from '../doctor-checks-pcap.ts';
import { ROAD_CHECK } from '../doctor-checks-vxlan.ts';
import { realSystem } from '../doctor-system.ts';
import { readGroupFile } from '../group-file.ts';
import type { GroupSpec } from '../group-file.ts';
import { EXIT, targetOf } from './context.ts';
import type { Context, GlobalOptions } from './context.ts';

const BPFFS = '/sys/fs/bpf';

/** Of a group across hosts those of the members that live here. */
export function wantedPorts(spec: GroupSpec, self: string): readonly PortWanted[] {
  const here = spec.members.filter(({ host }) => host === undefined || host === self);
  return here.flatMap(({ name, nics }) => nics.map(({ port, mac }) => ({ member: name, port, mac })));
}

/** What VXLAN puts around a member's IP packet: IPv4, UDP, VXLAN, Ethernet; and a tag of the member's own. */
const OUTER_BYTES = 50;
const TAG_BYTES = 4;
export function wantedRoad({ wire, members }: GroupSpec, self: string, port?: number): RoadWanted | undefined {
  if (wire === undefined || 'vlan' in wire) return undefined;
  const isTagged = members.some(({ nics }) => nics.some(({ vlan }) => vlan !== 0));
  return { self, hosts: wire.hosts, outerBytes: OUTER_BYTES + (isTagged ? TAG_BYTES : 0), ...(port === undefined ? {} : { port }) };
}

function portOf(text: string): number {
  if (!/^[1-9][0-9]{0,4}$/.test(text) || Number(text) > 65535) throw new InvalidArgumentError('a port is a number from 1 to 65535.');
  return Number(text);
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
    .option('--host <name>', 'this host\'s name in the file of a group across hosts; the machine\'s when left out')
    .addOption(new Option('--vxlan-port <port>', 'vxlan.port of sluiced\'s settings, for a group by VXLAN; 4789 when left out').env('SLUICE_VXLAN_PORT').argParser(portOf))
    .addOption(new Option('--plane <plane>', 'the data plane it is asked about').choices(['ebpf', 'pcap']).default('ebpf'))
    .option('--bpffs <dir>', 'where BPF programs are pinned', BPFFS)
    .addHelpText('after', '\nExample:\n  $ sluice doctor -f web.yaml eth0\n  $ sudo sluice doctor -f web.yaml --host h1\n  $ sudo sluice doctor -f web.yaml --host h1 --vxlan-port 8472\n  $ sudo ip netns exec vms sluice doctor\n  $ sluice doctor --plane pcap tap0 tap1 eth1')
    .action(async (ports: string[], options: { file?: string; host?: string; vxlanPort?: number; bpffs: string; plane: 'ebpf' | 'pcap' }, command: Command) => {
      const spec = options.file === undefined ? undefined : (await readGroupFile(options.file)).spec;
      const self = options.host ?? hostname();
      const wanted = spec === undefined ? undefined : wantedPorts(spec, self);
      const road = spec === undefined ? undefined : wantedRoad(spec, self, options.vxlanPort);
      const system = realSystem(targetOf(command.optsWithGlobals<GlobalOptions>()));
      const findings = examine(await look(system, { ports, wanted, bpffs: options.bpffs, ...(road === undefined ? {} : { road }) }), options.plane === 'pcap' ? CHECKS_PCAP : [...CHECKS, ROAD_CHECK]);
      context.show(command, findings, () => findingsText(findings));
      if (findings.some(({ level }) => level === 'fail')) context.exitCode = EXIT.failed;
    });
}
