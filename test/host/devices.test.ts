import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { deleteHoldPair, deleteTunnel, ensureHoldPair, ensureTunnel } from '../../proxy/edge/devices.ts';
import { Netlink } from '../../proxy/edge/netlink.ts';
import { enterOwnNamespace, ip } from '../support/own-namespace.ts';
import { UNPRIVILEGED } from './privilege.ts';

const OWNER = 'sluice test';
const NAMES = { hold: 'slh7', ring: 'slr7' };
const TUNNEL = { name: 'slx', port: 4790 };

interface Shown {
  readonly ifindex: number;
  readonly ifname: string;
  readonly ifalias?: string;
  readonly flags: readonly string[];
}
const shown = (): Shown[] => (JSON.parse(ip('-j link show')) as Shown[]).filter(({ ifname }) => ifname.startsWith('sl'));
const owners = (): [string, string | undefined, boolean][] => shown().map(({ ifname, ifalias, flags }) => [ifname, ifalias, flags.includes('UP')]);

describe.skipIf(UNPRIVILEGED !== undefined)('a device of our names that says nobody\'s', () => {
  let netlink: Netlink;
  beforeAll(() => {
    enterOwnNamespace();
    netlink = new Netlink();
  });
  afterEach(() => {
    for (const { ifname } of shown()) if (shown().some((there) => there.ifname === ifname)) ip(`link del ${ifname}`);
  });
  const pair = (): unknown => ensureHoldPair(netlink, NAMES, OWNER);

  test.each([
    ['made, not named', []],
    ['one end named and up', [`link set slr7 alias ${OWNER.replace(' ', '_')}`]],
  ])('a hold pair as a kill leaves it, %s, is made again', (_when, more) => {
    ip('link add slh7 mtu 65535 type veth peer name slr7 mtu 65535');
    for (const line of more) ip(line);
    const owner = more.length === 0 ? OWNER : OWNER.replace(' ', '_');
    const before = shown().map(({ ifindex }) => ifindex);
    ensureHoldPair(netlink, NAMES, owner);
    expect(owners().toSorted()).toEqual([['slh7', owner, true], ['slr7', owner, true]]);
    expect(shown().some(({ ifindex }) => before.includes(ifindex))).toBe(false);
    deleteHoldPair(netlink, NAMES, owner);
    expect(shown()).toEqual([]);
  });

  test('but not one that somebody uses, or has the other end of', () => {
    ip('link add slh7 mtu 65535 type veth peer name slr7 mtu 65535');
    ip('link set slh7 up');
    expect(pair).toThrow('device slh7 exists already and is not ours');
    ip('link set slh7 down');
    ip('link set slr7 alias theirs');
    expect(pair).toThrow('slh7 exists already and is not ours');
    ip('link set slh7 alias theirs');
    expect(pair).toThrow("slh7 exists already and belongs to 'theirs'");
    ip('link del slh7');
    ip('link add slh7 mtu 65535 type veth peer name slr7 mtu 65535');
    ip('link set slr7 up');
    expect(pair, 'its other end is in use').toThrow('slh7 exists already and is not ours');
    ip('link del slh7');
    ip('link add slh7 mtu 65535 type veth peer name slfoo mtu 65535');
    ip('link add slr7 mtu 65535 type veth peer name slbar mtu 65535');
    expect(pair, 'the two are no pair').toThrow('slh7 exists already and is not ours');
    expect(owners().map(([name]) => name).toSorted()).toEqual(['slbar', 'slfoo', 'slh7', 'slr7']);
    ip('link del slr7');
    ip('link del slh7');
    ip('link add slh7 type veth peer name slr7');
    expect(pair, 'not as ours are made').toThrow('slh7 exists already and is not ours');
    ip('link del slh7');
    ip('link add slh7 type bridge');
    expect(pair).toThrow('slh7 exists already and is not ours');
    expect(owners()).toEqual([['slh7', undefined, false]]);
  });

  test('a VXLAN device as a kill leaves it is taken over, another one is not', () => {
    ip(`link add slx type vxlan external gbp dstport ${TUNNEL.port}`);
    ensureTunnel(netlink, TUNNEL, OWNER);
    expect(owners()).toEqual([['slx', OWNER, true]]);
    deleteTunnel(netlink, TUNNEL.name, OWNER);
    expect(shown()).toEqual([]);
    ip('link add slx type vxlan id 42 dstport 4790');
    expect(() => ensureTunnel(netlink, TUNNEL, OWNER), 'of one VNI').toThrow('device slx exists already and is not ours');
    ip('link del slx');
    ip('link add slx type bridge');
    expect(() => ensureTunnel(netlink, TUNNEL, OWNER)).toThrow('device slx exists already and is not ours');
    deleteTunnel(netlink, TUNNEL.name, OWNER);
    expect(owners()).toEqual([['slx', undefined, false]]);
  });
});
