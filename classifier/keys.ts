/** Keys of the kernel's hash maps: bytes there, text here. Bytes are in the machine's order. */
import { endianness } from 'node:os';
import { MAC_KEY } from './abi.ts';
import { macParse, macWrite } from './frame.ts';
import type { TableName } from './plan.ts';

const LITTLE = endianness() === 'LE';

export type NumberTable = Exclude<TableName, 'macs' | 'guarded'>;
/** Its keys are numbers. */
export const isNumber = (table: TableName): table is NumberTable => table !== 'macs' && table !== 'guarded';

/** `ifindex` for ports and devices, the VLAN id for wires, the VNI for vnis, the nic for peers, `bridge vlan mac` for macs and guarded. */
export function keyBytes(table: TableName, text: string): Uint8Array {
  if (isNumber(table)) return u32Bytes(Number(text));
  const [bridge = '', vlan = '', mac = ''] = text.split(' ');
  const bytes = new Uint8Array(new ArrayBuffer(MAC_KEY.size));
  const view = new DataView(bytes.buffer);
  view.setUint32(MAC_KEY.bridge, Number(bridge), LITTLE);
  view.setUint16(MAC_KEY.vlan, Number(vlan), LITTLE);
  macWrite(macParse(mac), bytes, MAC_KEY.mac);
  return bytes;
}
export function keyText(table: TableName, bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (isNumber(table)) return String(view.getUint32(0, LITTLE));
  const mac = Buffer.from(bytes.subarray(MAC_KEY.mac)).toString('hex').replace(/(..)(?!$)/g, '$1:');
  return `${view.getUint32(MAC_KEY.bridge, LITTLE)} ${view.getUint16(MAC_KEY.vlan, LITTLE)} ${mac}`;
}
/** "192.0.2.1" as a number; 0 = it is no IPv4 address. */
export function ipv4Parse(text: string): number {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1).map(Number) ?? [];
  return parts.some((part) => part > 255) ? 0 : parts.reduce((sum, part) => sum * 256 + part, 0);
}
export function u32Bytes(value: number): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(4));
  new DataView(bytes.buffer).setUint32(0, value, LITTLE);
  return bytes;
}
