/**
 * The dashboard's files, as they lie beside this program: read once at start, served as they are.
 *
 *     /ui/ ─► index.html ─► page/app.js, its modules, uPlot ─► /v1/figures/live, /v1/events
 *
 * What is served is a list made from the directory, so no path of a request ever names a file. The
 * page may load nothing from anywhere else and run nothing inline (PAGE_HEADERS); it only looks: no
 * command is on it. Where the files were not built, /ui/ is not there.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import type { App } from './commands.ts';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
};

/** What the page shares with the command line, beside its own directory. */
const SHARED = ['format.js'];

/** `directory` has page/ and the shared files. False where the page was not built. */
export function addPageRoutes(app: App, directory: string): boolean {
  const files = filesOf(directory);
  for (const [name, body] of files) {
    const type = TYPES[extname(name)] ?? 'application/octet-stream';
    app.get(`/ui/${name === 'page/index.html' ? '' : name}`, { schema: { hide: true } }, (_request, reply) => reply.headers(PAGE_HEADERS).type(type).send(body));
  }
  if (files.size > 0) app.get('/ui', { schema: { hide: true } }, (_request, reply) => reply.redirect('/ui/'));
  return files.size > 0;
}

function filesOf(directory: string): ReadonlyMap<string, Buffer> {
  const page = join(directory, 'page');
  const own = existsSync(page) ? readdirSync(page).filter((name) => extname(name) in TYPES).map((name) => `page/${name}`) : [];
  const names = own.includes('page/index.html') ? [...own, ...SHARED] : [];
  return new Map(names.map((name) => [name, readFileSync(join(directory, name))]));
}
