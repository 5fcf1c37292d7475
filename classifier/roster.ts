/**
 * Which cell each nic of a group has. Nics found in the cells after a restart are taken over by
 * group, MAC and VLAN, so their counters go on; what nobody takes over is dropped in the end.
 */
import type { Cells, NicCell } from './cells.ts';
import { ipv4Parse } from './keys.ts';
import type { MemberView, SpecView } from './kernel.ts';

/** A nic's cell and its member's. */
export interface CellPair {
  readonly nic: number;
  readonly memberIndex: number;
}
export interface NicEntry extends CellPair {
  readonly member: string;
  readonly port: string;
  readonly mac: string;
  readonly vlan: number;
  /** Its member lives on another host: `port` is the uplink. */
  readonly remote: boolean;
  /** Address of that host by VXLAN, 0 = none. */
  readonly peer: number;
}
/** Whose members are elsewhere, and by which port they are reached. */
export interface Away {
  readonly self: string;
  readonly uplink: string;
  /** By VXLAN: their addresses. */
  readonly hosts?: Readonly<Record<string, string>>;
}

/** By VXLAN: of each host's nics in a VLAN the one that a copy for all of them is sent for. */
export function firstsOf(nics: readonly NicEntry[]): ReadonlySet<number> {
  const byPlace = new Map([...nics].filter(({ remote, peer }) => remote && peer !== 0).sort((a, b) => b.nic - a.nic).map(({ nic, peer, vlan }) => [`${peer} ${vlan}`, nic]));
  return new Set(byPlace.values());
}

const keyOf = (group: number, { mac, vlan }: { readonly mac: string; readonly vlan: number }): string => `${group} ${vlan} ${mac}`;

export class Roster {
  readonly #cells: Cells;
  readonly #leftover: Map<string, CellPair>;

  constructor(cells: Cells, adopted: readonly NicCell[]) {
    this.#cells = cells;
    this.#leftover = new Map(adopted.map((cell) => [keyOf(cell.group, cell), { nic: cell.nic, memberIndex: cell.member }]));
  }

  hasLeftovers(group: number, spec: SpecView): boolean {
    return spec.members.some(({ nics }) => nics.some((nic) => this.#leftover.has(keyOf(group, nic))));
  }
  leftovers(): readonly CellPair[] {
    return [...this.#leftover.values()];
  }
  dropLeftovers(): readonly CellPair[] {
    const dropped = this.leftovers();
    this.#leftover.clear();
    return dropped;
  }

  /** The nics of `spec`: those the group has, those an earlier daemon left for it, new ones. */
  nicsFor(group: { readonly id: number; readonly nics: readonly NicEntry[] }, spec: SpecView, members: readonly MemberView[], away?: Away): NicEntry[] {
    return spec.members.flatMap((member) => {
      const known = group.nics.find((entry) => entry.member === member.name)?.memberIndex;
      const left = member.nics.map((nic) => this.#leftover.get(keyOf(group.id, nic))).find((cell) => cell !== undefined);
      const memberIndex = known ?? left?.memberIndex ?? this.#cells.newMember();
      const colour = members.find(({ name }) => name === member.name)?.colour;
      if (known === undefined && colour !== undefined) this.#cells.setMemberColour(memberIndex, colour);
      const remote = away !== undefined && member.host !== undefined && member.host !== away.self;
      const peer = remote ? ipv4Parse(away.hosts?.[member.host ?? ''] ?? '') : 0;
      return member.nics.map(({ port: own, mac, vlan }) => {
        const port = remote ? away.uplink : own;
        const same = group.nics.find((e) => e.member === member.name && e.mac === mac && e.vlan === vlan);
        if (same !== undefined) return same.port === port && same.remote === remote && same.peer === peer ? same : { ...same, port, remote, peer };
        return { nic: this.#nicFor(group.id, memberIndex, mac, vlan), memberIndex, member: member.name, port, mac, vlan, remote, peer };
      });
    });
  }
  #nicFor(group: number, member: number, mac: string, vlan: number): number {
    const key = keyOf(group, { mac, vlan });
    const left = this.#leftover.get(key);
    if (left === undefined || left.memberIndex !== member) return this.#cells.newNic({ group, member, mac, vlan });
    this.#leftover.delete(key);
    return left.nic;
  }

  /** After no program can reach them. A member's cell goes with the last nic that `used` has of it. */
  free(gone: readonly CellPair[], used: readonly CellPair[]): void {
    const members = new Set(used.map(({ memberIndex }) => memberIndex));
    for (const { nic, memberIndex } of gone) {
      this.#cells.freeNic(nic);
      if (!members.has(memberIndex)) this.#cells.freeMember(memberIndex);
    }
  }
}
