/** The twin's tables, written into the kernel's maps. */
import { GROUP, LANE, LANES, MEMBER, NIC, QUEUE, RESIDUES } from '../../classifier/abi.ts';
import type { MapName, Program } from '../../classifier/abi.ts';
import { macWrite } from '../../classifier/frame.ts';
import { u32Bytes } from '../../classifier/keys.ts';
import type { MacRow, Tables } from '../../classifier/rules.ts';
import { mapCells } from '../../proxy/edge/ffi/bpf.ts';
import type { Kernel } from '../../proxy/edge/kernel.ts';

export const COUNTERS = ['heldIn', 'heldOut', 'earlyIn', 'earlyOut', 'heldGone', 'earlyGone'] as const;
function macKeyBytes(row: MacRow, mac: number): Uint8Array {
  const bytes = new Uint8Array(12);
  new DataView(bytes.buffer).setUint32(0, row.bridge, true);
  new DataView(bytes.buffer).setUint16(4, row.vlan, true);
  macWrite(mac, bytes, 6);
  return bytes;
}

const mapped = new Map<string, DataView>();
function cellsOf(pin: string): DataView {
  const there = mapped.get(pin) ?? new DataView(mapCells(pin).buffer);
  mapped.set(pin, there);
  return there;
}

export function load(kernel: Kernel<Program>, pins: string, t: Tables, ifindexes: readonly number[]): void {
  for (const table of ['ports', 'macs', 'guarded', 'devices', 'wires', 'vnis', 'peers'] as const satisfies readonly MapName[]) {
    for (const { key } of kernel.entries(table)) kernel.remove(table, key);
  }
  for (const [ifindex, nic] of t.ports) kernel.put('ports', u32Bytes(ifindex), nic);
  for (const [ifindex, bridge] of t.devices) kernel.put('devices', u32Bytes(ifindex), bridge);
  for (const [vlan, group] of t.wires) kernel.put('wires', u32Bytes(vlan), group);
  for (const [vni, group] of t.vnis) kernel.put('vnis', u32Bytes(vni), group);
  for (const [nic, peer] of t.peers) kernel.put('peers', u32Bytes(nic), peer);
  for (const table of ['macs', 'guarded'] as const) {
    for (const [mac, rows] of t[table]) for (const row of rows) kernel.put(table, macKeyBytes(row, mac), row.nic);
  }
  for (const ifindex of ifindexes) kernel.count(ifindex);
  const nics = new DataView(kernel.cells.nics);
  for (const [index, nic] of t.nics) {
    const at = index * NIC.size;
    for (const field of ['ifindex', 'bridge', 'group', 'member', 'flags'] as const) nics.setUint32(at + NIC[field], nic[field], true);
    nics.setUint16(at + NIC.vlan, nic.vlan, true);
    macWrite(nic.mac, new Uint8Array(kernel.cells.nics), at + NIC.mac);
    for (const field of COUNTERS) nics.setBigUint64(at + NIC[field], BigInt(nic[field]), true);
    nics.setUint32(at + NIC.next, 0, true);
  }
  const groups = new DataView(kernel.cells.groups);
  const lanes = cellsOf(`${pins}/lanes`);
  const queues = cellsOf(`${pins}/queues`);
  for (const [id, group] of t.groups) {
    const at = id * GROUP.size;
    groups.setUint32(at + GROUP.colour, group.colour, true);
    groups.setUint32(at + GROUP.commit, group.commit, true);
    groups.setUint32(at + GROUP.holdIfindex, group.holdIfindex, true);
    groups.setUint32(at + GROUP.ringIfindex, group.ringIfindex, true);
    groups.setUint32(at + GROUP.laneIfindex, group.laneIfindex, true);
    groups.setUint32(at + GROUP.exitIfindex, group.exitIfindex, true);
    groups.setUint32(at + GROUP.poolIfindex, group.poolIfindex, true);
    queues.setBigUint64(id * QUEUE.size + QUEUE.bytesMax, 1n << 60n, true);
    for (let lane = 0; lane < LANES; lane += 1) {
      const cell = (id * LANES + lane) * LANE.size;
      lanes.setUint32(cell + LANE.state, group.lanes.get(lane)?.state ?? 0, true);
      lanes.setUint32(cell + LANE.colour, group.lanes.get(lane)?.colour ?? 0, true);
    }
    groups.setUint32(at + GROUP.firstNic, group.nics[0] ?? 0, true);
    groups.setBigUint64(at + GROUP.wire, (BigInt(group.generation) << 32n) | BigInt(group.base), true);
    groups.setUint32(at + GROUP.wireVlan, group.wireVlan, true);
    for (const field of ['uplink', 'tunnel', 'vni', 'here'] as const) groups.setUint32(at + GROUP[field], group[field], true);
    group.nics.forEach((nic, i) => nics.setUint32(nic * NIC.size + NIC.next, group.nics[i + 1] ?? 0, true));
    for (let slot = 0; slot < RESIDUES; slot += 1) groups.setBigUint64(at + GROUP.heldIn + 8 * slot, 0n, true);
  }
  const members = new DataView(kernel.cells.members);
  for (const [member, colour] of t.members) members.setUint32(member * MEMBER.size, colour, true);
}
