/** What README, ARCHITECTURE and the guides name is there: files, and the tests that are said to show a claim. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const GUIDES = 'deploy/guides';
const PAGES = ['README.md', 'ARCHITECTURE.md', ...readdirSync(join(root, GUIDES)).map((name) => `${GUIDES}/${name}`)];
const text = (page: string): string => readFileSync(join(root, page), 'utf8');

/** `test/unit/x`, of a file x.test.ts, x.ts or a directory. */
const isThere = (path: string): boolean => ['', '.ts', '.test.ts'].some((end) => existsSync(join(root, `${path}${end}`)));
const testNamed = (path: string): string => text(`${path}.test.ts`).replaceAll('\\\'', '\'');

describe.each(PAGES)('%s', (page) => {
  test('every test it names is a file', () => {
    const named = [...text(page).matchAll(/`(test\/[\w./-]+)`/g)].map(([, path = '']) => path);
    expect(named.filter((path) => !isThere(path))).toEqual([]);
  });
  test('every file it links to is there', () => {
    const links = [...text(page).matchAll(/\]\(([^)#:]+)\)/g)].map(([, path = '']) => path);
    expect(links.filter((path) => !existsSync(resolve(root, dirname(page), path)))).toEqual([]);
  });
});

describe('the security page', () => {
  const rows = text(`${GUIDES}/security.md`).split('\n').filter((line) => line.startsWith('| ') && !/^\| (who|tried) \|/.test(line));
  const inTable = (columns: number): string[][] => rows.map((line) => line.split(' | ')).filter((cells) => cells.length === columns);

  test('a test for each claim of who may not what, but of what nothing stops', () => {
    const claims = inTable(3).map(([, , cell = '']) => cell).filter((cell) => !cell.startsWith('nothing stops these'));
    expect(claims.length).toBe(5);
    for (const claim of claims.flatMap((cell) => cell.split(';'))) expect(claim, claim).toMatch(/test\/|every kind of caller|anything else/);
  });

  test('the titles it gives are titles of those tests', () => {
    const attempts = inTable(4);
    expect(attempts.length).toBe(11);
    const pairs = attempts.map(([, , , cell = '']) => (cell.includes('test/') ? cell : `\`test/host/attacks-api\` (${cell})`));
    const named = [...inTable(3).map(([, , cell = '']) => cell), ...pairs].flatMap((cell) => [...cell.matchAll(/`(test\/[\w./-]+)` \(([^)]*)\)/g)]);
    const titles = named.flatMap(([, path = '', list = '']) => [...list.matchAll(/\*([^*]+)\*/g)].map(([, title = '']) => ({ path, title })));
    expect(titles.length).toBeGreaterThan(20);
    for (const { path, title } of titles) expect(testNamed(path), `${path}: ${title}`).toMatch(new RegExp(`\\b(?:test|it)\\(['\`]${title.replace(/[.*+?^$()[\]{}|\\]/g, '\\$&')}`));
  });
});
