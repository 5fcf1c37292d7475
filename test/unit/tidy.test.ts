import { readFileSync, readdirSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';

/**
 * The architecture, as a test: which way imports may run, no cycles, no dead files, no file that
 * outgrew its room, no word of unfinished work. ARCHITECTURE.md has the same map in prose.
 */
const root = resolve(import.meta.dirname, '../..');
const houses = ['proxy', 'classifier', 'checkpoint-hooks', 'bench', 'test'];

function walk(dir: string): string[] {
  return readdirSync(dir).flatMap((name) => {
    const path = join(dir, name);
    return statSync(path).isDirectory() ? walk(path) : [path];
  });
}
const files = houses.flatMap((house) => walk(join(root, house))).map((path) => relative(root, path));
const sources = files.filter((file) => file.endsWith('.ts'));
const text = new Map(files.filter((f) => /\.(ts|c|h|sh)$/.test(f)).map((f) => [f, readFileSync(join(root, f), 'utf8')]));

const IMPORT = /(?:^|\n)\s*(?:import|export)\b[^'"`;]*?from\s*['"]([^'"]+)['"]|(?:^|\n)\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/g;
function importsOf(file: string): string[] {
  return [...(text.get(file) ?? '').matchAll(IMPORT)].map((m) => m[1] ?? m[2] ?? m[3] ?? '');
}
const inside = new Map(
  sources.map((file) => [
    file,
    importsOf(file)
      .filter((spec) => spec.startsWith('.'))
      .map((spec) => relative(root, resolve(root, dirname(file), spec))),
  ]),
);

/** First rule whose `from` fits decides; `may` lists what may be imported, by path prefix. */
const RULES: readonly { from: string; may: readonly string[] }[] = [
  { from: 'proxy/core/types.ts', may: [] },
  { from: 'proxy/core/', may: ['proxy/core/'] },
  { from: 'proxy/ring/', may: ['proxy/ring/', 'proxy/core/types.ts'] },
  { from: 'proxy/ports.ts', may: ['proxy/core/types.ts'] },
  { from: 'proxy/plane/', may: ['proxy/plane/', 'proxy/ring/', 'proxy/edge/', 'proxy/ports.ts', 'proxy/core/types.ts'] },
  { from: 'proxy/switch/', may: ['proxy/switch/', 'proxy/plane/', 'proxy/ring/', 'proxy/edge/', 'proxy/ports.ts', 'proxy/core/types.ts', 'classifier/'] },
  { from: 'proxy/control/', may: ['proxy/control/', 'proxy/core/', 'proxy/ports.ts'] },
  { from: 'proxy/doors/', may: [] },
  { from: 'proxy/edge/', may: ['proxy/edge/', 'proxy/doors/protobuf.ts', 'proxy/ports.ts', 'proxy/core/types.ts'] },
  { from: 'proxy/hooks/', may: ['proxy/hooks/', 'proxy/doors/client.ts'] },
  { from: 'proxy/api/contract', may: ['proxy/core/types.ts', 'proxy/api/contract', 'proxy/doors/typebox.ts'] },
  { from: 'proxy/api/', may: ['proxy/api/', 'proxy/doors/', 'proxy/core/types.ts', 'proxy/ports.ts'] },
  { from: 'proxy/', may: ['proxy/', 'classifier/'] },
  { from: 'classifier/', may: ['classifier/'] },
  { from: 'checkpoint-hooks/', may: ['checkpoint-hooks/', 'proxy/api/contract', 'proxy/doors/', 'classifier/'] },
  { from: 'bench/programs/played-child.ts', may: ['bench/', 'proxy/edge/etcd-ledger.ts', 'proxy/core/types.ts'] },
  { from: 'bench/', may: ['bench/', 'proxy/api/contract', 'checkpoint-hooks/'] },
  { from: 'test/', may: [''] },
];
/** Files that start a process of their own: nobody imports them. */
const ENTRIES = [/^proxy\/main\.ts$/, /worker\.ts$/, /-child\.ts$/, /^checkpoint-hooks\/cli\.ts$/, /^checkpoint-hooks\/page\/app\.ts$/, /^bench\/[^/]+\.ts$/, /^test\//];

describe('arrows', () => {
  test('every import runs the way ARCHITECTURE.md draws it', () => {
    const wrong: string[] = [];
    for (const [file, targets] of inside) {
      const rule = RULES.find(({ from }) => file.startsWith(from));
      expect(rule, `no rule for ${file}`).toBeDefined();
      for (const target of targets) {
        if (!rule?.may.some((prefix) => target.startsWith(prefix))) wrong.push(`${file} -> ${target}`);
        if (target === 'proxy/main.ts') wrong.push(`${file} -> main`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test('the core imports nothing from outside itself, not even node', () => {
    const pure = sources.filter((f) => f.startsWith('proxy/core/') || f.startsWith('proxy/ring/') || f.startsWith('proxy/api/contract'));
    const wrong = pure.flatMap((file) =>
      importsOf(file).filter((spec) => !spec.startsWith('.')).map((spec) => `${file} -> ${spec}`),
    );
    expect(wrong).toEqual([]);
    const clocks = pure.filter((file) => /Date\.now|performance\.now|Math\.random|process\.|setTimeout/.test(text.get(file) ?? ''));
    expect(clocks, 'no clock, no randomness, no process in the core').toEqual([]);
  });

  test('what has a door is loaded by it alone', () => {
    const doors = sources.filter((file) => file.startsWith('proxy/doors/'));
    const behind = new Set(doors.flatMap((file) => importsOf(file)));
    const programs = sources.filter((file) => /^(proxy|checkpoint-hooks)\//.test(file) && !doors.includes(file));
    const around = programs.flatMap((file) => [...(text.get(file) ?? '').matchAll(/^import (?!type\b).*from '([^']+)';$/gm)].filter(([, spec = '']) => behind.has(spec)).map(([line]) => `${file}: ${line}`));
    expect([...behind].sort()).toContain('fastify');
    expect(around).toEqual([]);
  });

  test('no cycles', () => {
    const done = new Set<string>();
    const cycles: string[] = [];
    const visit = (file: string, trail: readonly string[]): void => {
      if (trail.includes(file)) cycles.push([...trail.slice(trail.indexOf(file)), file].join(' -> '));
      if (done.has(file) || trail.includes(file)) return;
      for (const target of inside.get(file) ?? []) visit(target, [...trail, file]);
      done.add(file);
    };
    for (const file of sources) visit(file, []);
    expect(cycles).toEqual([]);
  });

  test('no dead files', () => {
    const used = new Set([...inside.values()].flat());
    const dead = sources.filter((file) => !used.has(file) && !ENTRIES.some((entry) => entry.test(file)));
    expect(dead).toEqual([]);
  });
});

describe('room', () => {
  test('no file over 400 lines', () => {
    const long = [...text].filter(([, body]) => body.split('\n').length > 401).map(([file, body]) => `${file} ${body.split('\n').length}`);
    expect(long).toEqual([]);
  });

  test('nothing unfinished, silenced or focused', () => {
    const self = relative(root, import.meta.filename);
    const soft = [...text]
      .filter(([file]) => file !== self && file.endsWith('.ts'))
      .flatMap(([file, body]) =>
        body.split('\n').flatMap((line, i) =>
          /\b(TODO|FIXME|XXX)\b|\.only\(|as unknown as|: any\b|@ts-ignore|@ts-expect-error|eslint-disable/.test(line) ? [`${file}:${i + 1} ${line.trim()}`] : [],
        ),
      );
    expect(soft).toEqual([]);
  });
});
