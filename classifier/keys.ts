/** Keys of the kernel's hash maps: bytes there, text here. Bytes are in the machine's order. */
import { endianness } from 'node:os';
import { MAC_KEY } from './abi.ts';
import { macParse, macWrite } from './frame.ts';
import type { TableName } from './plan.ts';

const LITTLE = endianness() === 'LE';

const isNumber = (table: TableName): boolean => table === 'ports' || table === 'devices' || table === 'wires';

/** `ifindex` for ports and devices, the VLAN id for wires, `bridge vlan mac` for macs and guarded. */
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
export function u32Bytes(value: number): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(4));
  new DataView(bytes.buffer).setUint32(0, value, LITTLE);
  return bytes;
}
