import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checker, CutBody, ERROR_STATUS, GroupBody, groupFileOf, parseGroup, parseMember, parseSize, problemText } from '../../proxy/api/contract.ts';

const nic = { port: 'tap0', mac: '02:00:00:00:00:01' };
const file = (over: object = {}): object => ({ group: 'web', members: [{ name: 'a', ...nic }], ...over });
const refusalOf = (input: unknown): string => {
  const result = parseGroup(input);
  return result.ok ? 'accepted' : problemText(result.problem);
};

describe('a good group file', () => {
  test('gets its defaults and a lower-case MAC', () => {
    const result = parseGroup(file({ members: [{ name: 'a', port: 'tap0', mac: '02:00:00:00:00:AB', vlan: 100 }] }));
    expect(result).toEqual({ ok: true, value: {
      group: 'web', commit: 'explicit', members: [{ name: 'a', nics: [{ port: 'tap0', mac: '02:00:00:00:00:ab', vlan: 100 }] }],
      hold: { bytes: 64 * 1024 * 1024, highWater: 0.75 }, foreignSource: 'hold', intraPath: 'redirect',
    } });
  });

  test('comes back from its spec as a file that gives the same spec', () => {
    const result = parseGroup(file({
      commit: 'acks', hold: { bytes: '1.5GiB', highWater: 0.5 }, foreignSource: 'drop', intraPath: 'bridge',
      members: [{ name: 'a', ...nic }, { name: 'b', nics: [{ port: 'tap1', mac: '02:00:00:00:00:02' }, { port: 'tap2', mac: '02:00:00:00:00:03', vlan: 7 }] }],
    }));
    expect(result.ok && parseGroup(groupFileOf(result.value))).toEqual(result);
  });
});

describe('addresses to announce', () => {
  const specOf = (over: object): unknown => {
    const result = parseGroup(file({ members: [{ name: 'a', ...nic, ...over }] }));
    return result.ok ? result.value.members[0]?.nics[0] : problemText(result.problem);
  };

  test('are kept in their shortest form, each once, and come back', () => {
    expect(specOf({ addresses: ['10.0.0.1', '2001:DB8:0::0:1', '2001:db8::1', 'fe80::1'] })).toMatchObject({ addresses: ['10.0.0.1', '2001:db8::1', 'fe80::1'] });
    expect(specOf({ addresses: [] })).toEqual({ ...nic, vlan: 0 });
    const result = parseGroup(file({ members: [{ name: 'a', nics: [{ ...nic, addresses: ['fd00::a'] }, { port: 'tap9', mac: '02:00:00:00:00:09' }] }] }));
    expect(result.ok && parseGroup(groupFileOf(result.value))).toEqual(result);
  });

  test.each(['10.0.0.0/24', '10.0.0', '224.0.0.1', '255.255.255.255', '0.0.0.0', '127.0.0.1', '::', '::1', 'ff02::1', 'fe80::1%eth0', '010.0.0.1', '10.0.0.256', '1:2', '::1]:80/[', '::ffff:10.0.0.1', 'host', ''])('"%s" is none', (text) => {
    expect(specOf({ addresses: ['10.0.0.1', text] })).toMatch(/^members\[0\]\.addresses\[1\]: .*unicast/);
  });

  test('are bounded, and belong to the form with port and mac', () => {
    expect(specOf({ addresses: Array.from({ length: 17 }, (_, i) => `10.0.0.${i + 1}`) })).toMatch(/^members\[0\]\.addresses: .*16/);
    expect(refusalOf(file({ members: [{ name: 'a', nics: [nic], addresses: ['10.0.0.1'] }] }))).toMatch(/both port\/mac and nics/);
  });
});

describe('a wrong group file is refused in one sentence', () => {
  const table: readonly [string, unknown, RegExp][] = [
    ['nothing', undefined, /expected a group file/],
    ['a list', [], /expected a group file/],
    ['no name', { members: [{ name: 'a', ...nic }] }, /"group" is missing/],
    ['bad name', file({ group: 'Web!' }), /^group: "Web!".*a-z, 0-9/],
    ['misspelt field', file({ comit: 'acks' }), /^comit: unknown field "comit"; allowed here: group, commit/],
    ['prototype', JSON.parse('{"group":"web","members":[],"__proto__":{}}'), /unknown field "__proto__"/],
    ['no members', file({ members: [] }), /^members: has 0 entries/],
    ['member field', file({ members: [{ name: 'a', prot: 'tap0' }] }), /^members\[0\]\.prot: unknown field.*name, port, mac, vlan, nics/],
    ['member name', file({ members: [{ name: '../a', ...nic }] }), /^members\[0\]\.name: /],
    ['no port', file({ members: [{ name: 'a' }] }), /^members\[0\]: member "a" has no port/],
    ['no mac', file({ members: [{ name: 'a', port: 'tap0' }] }), /"a" has no "mac"/],
    ['both forms', file({ members: [{ name: 'a', ...nic, nics: [nic] }] }), /both port\/mac and nics/],
    ['bad mac', file({ members: [{ name: 'a', port: 'tap0', mac: '0200.0000.0001' }] }), /^members\[0\]\.mac: .*"02:00:00:00:00:01"/],
    ['multicast mac', file({ members: [{ name: 'a', port: 'tap0', mac: '01:00:5e:00:00:01' }] }), /unicast/],
    ['zero mac', file({ members: [{ name: 'a', nics: [nic, { port: 'tap1', mac: '00:00:00:00:00:00' }] }] }), /^members\[0\]\.nics\[1\]\.mac: /],
    ['vlan 0', file({ members: [{ name: 'a', ...nic, vlan: 0 }] }), /^members\[0\]\.vlan: 0 .*1 to 4094/],
    ['vlan 4095', file({ members: [{ name: 'a', ...nic, vlan: 4095 }] }), /1 to 4094/],
    ['long port', file({ members: [{ name: 'a', ...nic, port: 'abcdefghijklmnop' }] }), /1 to 15 characters/],
    ['port ..', file({ members: [{ name: 'a', ...nic, port: '..' }] }), /1 to 15 characters/],
    ['a port with an escape', file({ members: [{ name: 'a', ...nic, port: 'tap\u001b[2J' }] }), /control character/],
    ['a port with a C1 control', file({ members: [{ name: 'a', ...nic, port: 'tap\u009b2J' }] }), /control character/],
    ['same port', file({ members: [{ name: 'a', ...nic }, { name: 'b', port: 'tap0', mac: '02:00:00:00:00:02' }] }), /port tap0 is used twice, by "a" and "b"/],
    ['same MAC', file({ members: [{ name: 'a', port: 'tap0', mac: '02:00:00:00:00:0a' }, { name: 'b', port: 'tap1', mac: '02:00:00:00:00:0A' }] }), /MAC 02:00:00:00:00:0a is used twice/],
    ['same name', file({ members: [{ name: 'a', ...nic }, { name: 'a', port: 'tap1', mac: '02:00:00:00:00:02' }] }), /^members\[1\]: the name "a" is used twice/],
    ['small hold', file({ hold: { bytes: '1KiB' } }), /^hold\.bytes: .*1MiB to 4GiB/],
    ['size unit', file({ hold: { bytes: '64MB' } }), /^hold\.bytes: "64MB".*64MiB/],
    ['high water', file({ hold: { highWater: 75 } }), /0\.05 to 1/],
    ['commit mode', file({ commit: 'auto' }), /"explicit".*or "acks"/],
  ];
  test.each(table)('%s', (_name, input, expected) => {
    expect(refusalOf(input)).toMatch(expected);
    expect(refusalOf(input)).not.toContain('\n');
  });

  test('more NICs than the kernel walks', () => {
    const members = Array.from({ length: 129 }, (_, i) => ({
      name: `m${i}`,
      nics: [0, 1].map((k) => ({ port: `p${i}-${k}`, mac: `02:00:00:0${k}:${(i >> 8).toString(16).padStart(2, '0')}:${(i & 255).toString(16).padStart(2, '0')}` })),
    }));
    expect(refusalOf(file({ members }))).toMatch(/at most 256 NICs/);
    expect(refusalOf(file({ members: members.slice(1) }))).toBe('accepted');
  });
});

test('a member body takes its name from the path and must not contradict it', () => {
  expect(parseMember(nic, 'b')).toEqual({ ok: true, value: { name: 'b', nics: [{ ...nic, vlan: 0 }] } });
  const other = parseMember({ name: 'c', ...nic }, 'b');
  expect(!other.ok && problemText(other.problem)).toMatch(/expected "b"/);
});

test.each([['64MiB', 67108864], ['1.5 GiB', 1610612736], ['100', 100], [7, 7], ['2KiB', 2048], ['x', undefined], ['1MB', undefined], ['-1', undefined]])('size %s', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test('numbers from outside stay exact', () => {
  const cut = checker(CutBody);
  for (const epoch of [-1, 0.5, 2 ** 53, Number.NaN, '1', null]) expect(cut({ generation: 1, epoch }).ok, String(epoch)).toBe(false);
  expect(cut({ generation: 0, epoch: 1 }).ok).toBe(false);
  expect(cut({ generation: 1, epoch: 0 }).ok).toBe(true);
});

test('whatever the schema refuses is explained, and what it takes is not', () => {
  const check = checker(GroupBody);
  const leaf = fc.oneof(fc.constantFrom('web', 'tap0', '02:00:00:00:00:01', 'acks', '64MiB'), fc.integer(), fc.double(), fc.boolean(), fc.constant(null), fc.string());
  const member = fc.record({ name: leaf, port: leaf, mac: leaf, vlan: leaf, nics: fc.oneof(leaf, fc.array(fc.record({ port: leaf, mac: leaf }, { requiredKeys: [] }))) }, { requiredKeys: [] });
  const body = fc.record({ group: leaf, commit: leaf, members: fc.oneof(leaf, fc.array(member)), hold: fc.oneof(leaf, fc.record({ bytes: leaf, highWater: leaf })), extra: leaf }, { requiredKeys: [] });
  fc.assert(fc.property(fc.oneof(body, fc.anything()), (input) => {
    const result = check(input);
    return result.ok || result.problem.message !== 'does not fit the schema';
  }), { numRuns: 3000 });
});

test('codes and statuses are what API.md promises', () => {
  expect(ERROR_STATUS).toMatchObject({
    bad_request: 400, no_such_group: 404, epoch_out_of_order: 409, not_acked: 409, fenced: 409, not_protected: 409, already_protected: 409, member_held: 409,
    too_large: 413, journal_failed: 503, plane_down: 503,
  });
});
