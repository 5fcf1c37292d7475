/**
 * The scripts that other programs call, called as these do: libvirt's hook with the arguments and
 * the XML that a libvirtd 9.0 gave it (test/support/libvirt), Xen's netbuf script with libxl's
 * arguments and environment. The daemon is the real API over the real core; the Xen store is two small commands.
 */
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { buildProgram } from '../../checkpoint-hooks/program.ts';
import { Context } from '../../checkpoint-hooks/commands/context.ts';
import type { Command } from 'commander';
import { parse } from 'yaml';
import { SluiceClient } from '../../checkpoint-hooks/client.ts';
import { cliCommand, serve } from './cli-world.ts';
import type { Served } from './cli-world.ts';
import { world } from './memory-control.ts';

const root = resolve(import.meta.dirname, '../..');
const STARTED = readFileSync(join(root, 'test/support/libvirt/started.xml'), 'utf8');

let here: Served;
let client: SluiceClient;
beforeEach(async () => {
  here = await serve();
  client = new SluiceClient({ socket: here.socket });
});
afterEach(async () => {
  await client.close();
  await here.remove();
});

/** Not spawnSync: the daemon it talks to is in this process. */
function script(path: string, args: readonly string[], env: Record<string, string>, input = ''): Promise<{ code: number | null; said: string }> {
  return new Promise((done) => {
    const all = { ...process.env, SLUICE_COMMAND: cliCommand(here.socket), SLUICE_HOOK_LOCK: join(here.dir, 'lock'), SLUICE_HOOK_SECONDS: '60', ...env };
    const child = spawn(join(root, path), args, { env: all, stdio: ['pipe', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (said += text));
    child.once('close', (code) => done({ code, said }));
    child.stdin.end(input);
  });
}
const libvirt = (operation: string, suboperation: string, xml: string, name = 'front') => script('deploy/libvirt/sluice', [name, operation, suboperation, '-'], {}, xml);

describe('the libvirt hook', () => {
  test('a domain joins by its metadata when it starts and leaves when it ends', async () => {
    for (const operation of ['prepare', 'start']) expect(await libvirt(operation, 'begin', STARTED)).toEqual({ code: 0, said: '' });
    expect((await libvirt('started', 'begin', STARTED)).said).toMatch(/front joined web/);
    expect((await client.group('web')).spec.members).toEqual([{ name: 'front', port: 'vnet0', mac: '52:54:00:00:00:01' }]);
    const second = STARTED.replaceAll('vnet0', 'vnet1').replaceAll('52:54:00:00:00:01', '52:54:00:00:00:02');
    expect((await libvirt('started', 'begin', second, 'store')).said).toMatch(/store joined web/);
    await libvirt('stopped', 'end', second, 'store');
    expect((await client.group('web')).members.map(({ name }) => name)).toEqual(['front']);
    await libvirt('stopped', 'end', STARTED);
    expect(await client.groups()).toEqual([]);
  });

  test('a member of a protected group stays, unless its metadata says otherwise', async () => {
    await libvirt('started', 'begin', STARTED);
    await client.protect('web');
    expect((await libvirt('stopped', 'end', STARTED)).said).toMatch(/front stays in web/);
    expect((await client.group('web')).phase).toBe('protected');
    await libvirt('stopped', 'end', STARTED.replace('group="web"', 'group="web" stop="discard"'));
    expect(await client.groups()).toEqual([]);
  });

  test('it never stands in a domain\'s way: no metadata, broken XML, no daemon', async () => {
    expect(await libvirt('started', 'begin', STARTED.replace(/<sluice:member[^>]*>/, ''))).toEqual({ code: 0, said: '' });
    expect(await libvirt('started', 'begin', '<domain')).toMatchObject({ code: 0, said: expect.stringMatching(/ParseError/) as string });
    await here.stop();
    expect(await libvirt('started', 'begin', STARTED)).toMatchObject({ code: 0, said: expect.stringMatching(/could not join/) as string });
    await here.start();
  });
});

/** A Xen store of three commands: a file a key. What `libxl` reads of it, `read` says. */
function xenStore(dir: string, keys: Record<string, string>): { readonly bin: string; read: (key: string) => string | undefined; write: (key: string, value: string) => void } {
  const [bin, kept] = [join(dir, 'bin'), join(dir, 'store')];
  for (const made of [bin, kept]) mkdirSync(made, { recursive: true });
  const file = (key: string): string => join(kept, key.replaceAll('/', '%'));
  const named = `file=${kept}/$(printf %s "$1" | tr / %)`;
  for (const [name, does] of [['read', 'cat "$file"'], ['write', 'printf %s "$2" > "$file"'], ['rm', 'rm "$file"']] as const) {
    writeFileSync(join(bin, `xenstore-${name}`), `#!/bin/sh\n${named}\n${does}\n`);
    chmodSync(join(bin, `xenstore-${name}`), 0o755);
  }
  const write = (key: string, value: string): void => writeFileSync(file(key), value);
  for (const [key, value] of Object.entries(keys)) write(key, value);
  return { bin, read: (key) => (existsSync(file(key)) ? readFileSync(file(key), 'utf8') : undefined), write };
}

/**
 * What libxl does with a netbuf script (libxl_netbuffer.c): one argument, `vifname`
 * and `XENBUS_PATH` in the environment beside xl's own, `REMUS_IFB` at teardown alone and only where a
 * set-up told it. The set-up has worked if it exits 0, `ifb` is there and `hotplug-error` is not.
 */
async function libxl(store: ReturnType<typeof xenStore>, op: 'setup' | 'teardown', vifname: string, [domid, devid]: readonly [number, number], env: Record<string, string> = {}): Promise<{ worked: boolean; said: string }> {
  const path = `/libxl/${domid}/remus/netbuf/${devid}`;
  const ifb = store.read(`${path}/ifb`);
  const { code, said } = await script('deploy/xen/remus-netbuf-setup', [op], {
    vifname, XENBUS_PATH: path, PATH: `${store.bin}:${process.env['PATH'] ?? ''}`, ...(op === 'teardown' && ifb !== undefined ? { REMUS_IFB: ifb } : {}), ...env,
  });
  return { worked: code === 0 && (op === 'teardown' || (store.read(`${path}/ifb`) !== undefined && store.read(`${path}/hotplug-error`) === undefined)), said };
}

const VIFS = [
  ['vif7.0', [7, 0], '/libxl/7/device/vif/0/mac'],
  ['vif7.0-emu', [7, 0], '/libxl/7/device/vif/0/mac'], // the emulated side of an HVM guest's
  ['web-front', [12, 3], '/local/domain/0/backend/vif/12/3/mac'], // `vifname=` of its own; an older libxl keeps the MAC at the backend alone
] as const;
test.each(VIFS)('the netbuf script of Remus, called for %s as libxl does: member and protection, and both gone again', async (vifname, [domid, devid], key) => {
  // The frontend's directory is the guest's own to write: nothing may be believed that it says.
  const store = xenStore(here.dir, { [key]: '00:16:3e:00:00:07', [`/local/domain/${domid}/device/vif/${devid}/mac`]: '00:16:3e:66:66:66' });
  const group = `remus-${domid}`;
  expect(await libxl(store, 'setup', vifname, [domid, devid])).toMatchObject({ worked: true });
  expect(await client.group(group)).toMatchObject({ phase: 'protected', spec: { members: [{ name: vifname, port: vifname, mac: '00:16:3e:00:00:07' }] } });
  expect(store.read(`/libxl/${domid}/remus/netbuf/${devid}/ifb`)).toBe(vifname);
  const gone = libxl(store, 'teardown', vifname, [domid, devid]);
  await vi.waitFor(async () => expect((await client.group(group)).phase).toBe('draining'), 20_000);
  here.control.drained(group); // only then can the group be deleted
  expect(await gone).toMatchObject({ worked: true });
  expect(await libxl(store, 'teardown', vifname, [domid, devid])).toMatchObject({ worked: true });
  expect((await client.groups()).map((one) => one.group)).toEqual([]);
});

test('the netbuf script tells libxl a failure, and the set-up after it works', async () => {
  const store = xenStore(here.dir, { '/local/domain/7/device/vif/0/mac': '00:16:3e:66:66:66' });
  expect(await libxl(store, 'setup', 'vif7.0', [7, 0])).toMatchObject({ worked: false, said: expect.stringMatching(/MAC of vif7.0/) as string });
  expect(store.read('/libxl/7/remus/netbuf/0/hotplug-error')).toMatch(/MAC of vif7.0/);
  expect(await libxl(store, 'teardown', 'vif7.0', [7, 0])).toMatchObject({ worked: true }); // libxl tears down what was never set up
  store.write('/libxl/7/device/vif/0/mac', '00:16:3e:00:00:07');
  expect(await libxl(store, 'setup', 'vif7.0', [7, 0])).toMatchObject({ worked: true });
});

test('the netbuf script joins or leaves a group that is there as it is: never written anew without its other members', async () => {
  const store = xenStore(here.dir, {});
  await client.apply('team', { members: [{ name: 'a', port: 'vif1.0', mac: '00:16:3e:00:00:01' }, { name: 'b', port: 'vif2.0', mac: '00:16:3e:00:00:02' }] });
  expect(await libxl(store, 'setup', 'vif7.0', [7, 0], { SLUICE_GROUP: 'team', SLUICE_MAC: '00:16:3e:00:00:01' })).toMatchObject({ worked: false, said: expect.stringMatching(/could not join team/) as string });
  expect((await client.group('team')).spec.members.map(({ name }) => name)).toEqual(['a', 'b']);
});

describe('what operators are given', () => {
  test('every metric of the Grafana dashboard and of the alert rules is one that the daemon has', async () => {
    const metrics = await world().deps.metrics.registry.getMetricsAsJSON();
    const known = new Set(metrics.flatMap(({ name }) => [name, `${name}_bucket`, `${name}_sum`, `${name}_count`]));
    for (const file of ['deploy/grafana/sluice.json', 'deploy/prometheus/sluice-alerts.yaml']) {
      const named = [...readFileSync(join(root, file), 'utf8').matchAll(/\bsluice_[a-z_]+/g)].map(([name]) => name);
      expect(named.length, file).toBeGreaterThan(5);
      expect(named.filter((name) => !known.has(name)), file).toEqual([]);
    }
  });

  test('alert rules are whole: name, expression, severity, summary; labels they use are labels the metrics have', async () => {
    const { registry } = world().deps.metrics;
    const metrics = new Map((await registry.getMetricsAsJSON()).map(({ name }) => [name, registry.getSingleMetric(name)]));
    const labelsOf = (expression: string): Set<string> => new Set([...expression.matchAll(/\bsluice_[a-z_]+/g)].flatMap(([name]) => {
      const metric: unknown = metrics.get(name.replace(/_(bucket|sum|count)$/, '')) ?? metrics.get(name);
      return typeof metric === 'object' && metric !== null && 'labelNames' in metric && Array.isArray(metric.labelNames) ? metric.labelNames.map(String) : [];
    }));
    const { groups } = parse(readFileSync(join(root, 'deploy/prometheus/sluice-alerts.yaml'), 'utf8')) as { groups: { rules: { alert: string; expr: string; for?: string; labels: { severity: string }; annotations: { summary: string } }[] }[] };
    const rules = groups.flatMap((group) => group.rules);
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
    for (const rule of rules) {
      expect(rule, rule.alert).toMatchObject({ alert: expect.stringMatching(/^Sluice[A-Za-z]+$/) as string, labels: { severity: expect.stringMatching(/^(critical|warning)$/) as string } });
      expect(rule.for ?? '1s', rule.alert).toMatch(/^\d+[sm]$/);
      for (const [open, close] of ['()', '[]', '{}']) expect(rule.expr.split(open ?? '').length, `${rule.alert}: ${open}${close}`).toBe(rule.expr.split(close ?? '').length);
      const known = new Set([...labelsOf(rule.expr), 'instance', 'job', 'le']);
      const used = [...rule.annotations.summary.matchAll(/\$labels\.(\w+)/g), ...rule.expr.matchAll(/[{,]\s*(\w+)\s*=[~"]/g)].map(([, label]) => label ?? '');
      expect(used.filter((label) => !known.has(label)), rule.alert).toEqual([]);
    }
  });

  test('every command says what it does and has an example', () => {
    const lacking: string[] = [];
    const walk = (command: Command, path: string): void => {
      if (command.description() === '') lacking.push(`${path}: no description`);
      let help = '';
      command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
      const isLeaf = command.commands.length === 0;
      if (isLeaf && !/Example[^\n]*:\n(.*\n)* {2}\$ (sudo )?(ip netns exec \w+ )?sluice /.test(help)) lacking.push(`${path}: no example`);
      for (const child of command.commands) if (child.name() !== 'help') walk(child, `${path} ${child.name()}`);
    };
    walk(buildProgram(new Context()), 'sluice');
    expect(lacking).toEqual([]);
  });

  test('every file that the pages point to is there', () => {
    const pages = ['README.md', 'ARCHITECTURE.md', ...['operators', 'security', 'engine-writers', 'contributors', 'troubleshooting'].map((name) => `deploy/guides/${name}.md`)];
    const dead = pages.flatMap((page) => [...readFileSync(join(root, page), 'utf8').matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)].flatMap(([, target]) => (existsSync(resolve(root, page, '..', target ?? '')) ? [] : [`${page}: ${target}`])));
    expect(dead).toEqual([]);
  });
});
