/**
 * The dashboard in a real browser, over `sluice ui` and a real daemon: clicked through while groups
 * are protected, cut, taken over and in trouble; and the daemon frozen under it. What the browser
 * refuses or complains about is a failure too.
 */
import { request } from 'node:http';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import puppeteer from 'puppeteer-core';
import type { Browser, Page } from 'puppeteer-core';
import { describe, expect, test } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { end, start, until } from '../../bench/bed/commands.ts';
import type { Running } from '../../bench/bed/commands.ts';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import { probeFlow } from '../../bench/bed/probe.ts';
import { UNPRIVILEGED } from './privilege.ts';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => existsSync(path));

const sluice = (bed: Bed, ...args: string[]): Running => start(process.execPath, [join(repositoryRoot(), 'bin/sluice'), '--socket', bed.daemon().socket, ...args]);

async function printedUrl(ui: Running): Promise<URL> {
  await until('sluice ui prints its address', () => /http:\S+/.test(ui.output()));
  return new URL(/http:\S+/.exec(ui.output())?.[0] ?? '');
}

/** Raw: a browser would not send these. */
function status(url: URL, path: string, options: { readonly method?: string; readonly headers?: Record<string, string> } = {}): Promise<{ status: number; cookie: string }> {
  return new Promise((resolve, reject) => {
    request({ host: url.hostname, port: url.port, path, method: options.method ?? 'GET', headers: options.headers ?? {} }, (reply) => {
      reply.resume();
      resolve({ status: reply.statusCode ?? 0, cookie: (reply.headers['set-cookie']?.[0] ?? '').split(';')[0] ?? '' });
    }).once('error', reject).end();
  });
}

/** Text of what fits, '' while it is hidden or not there. */
const shown = (page: Page, selector: string): Promise<string> =>
  page.evaluate(`(() => { const found = document.querySelector(${JSON.stringify(selector)}); return found === null || found.hidden ? '' : found.innerText; })()`).then(String);
async function shows(page: Page, selector: string, what: RegExp, timeoutMs = 10_000): Promise<void> {
  let last = '';
  const isShown = async (): Promise<boolean> => what.test((last = await shown(page, selector)));
  await until(`${selector} shows ${what}`, isShown, timeoutMs).catch((error: unknown) => {
    throw new Error(`${error instanceof Error ? error.message : String(error)}; it shows: ${last}`);
  });
}

interface Opened {
  readonly page: Page;
  readonly complaints: string[];
}
async function withPage(job: (bed: Bed, opened: Opened) => Promise<void>): Promise<void> {
  const bed = await Bed.create({ members: ['tap', 'tap', 'tap'] });
  let browser: Browser | undefined;
  let ui: Running | undefined;
  try {
    await bed.daemon().start();
    const [front, store, other] = bed.members.map(({ name, port, mac }) => ({ name, port, mac }));
    await bed.daemon().api.must('PUT', '/v1/groups/web', { members: [front, store] });
    await bed.daemon().api.must('PUT', '/v1/groups/batch', { commit: 'acks', members: [other] });
    ui = sluice(bed, 'ui');
    const url = await printedUrl(ui);
    browser = await puppeteer.launch({ executablePath: CHROMIUM ?? '', args: ['--no-sandbox', '--disable-gpu'], timeout: 60_000 });
    const page = await browser.newPage();
    const complaints: string[] = [];
    page.on('console', (message) => void (['error', 'warn'].includes(message.type()) && complaints.push(message.text())));
    page.on('pageerror', (error) => complaints.push(String(error)));
    await page.goto(url.href);
    await job(bed, { page, complaints });
  } finally {
    await browser?.close();
    if (ui !== undefined) await end(ui);
    await bed.close();
  }
}

describe.skipIf(UNPRIVILEGED !== undefined)('the dashboard', () => {
  test('shows what happens, and says when it does not know any more', async () => {
    await withPage(async (bed, { page, complaints }) => {
      const { api } = bed.daemon();
      await shows(page, '#link', /^live$/);
      await shows(page, '[data-tile=phase]', /idle/);
      await api.must('POST', '/v1/groups/web/protect', {});
      await shows(page, '[data-tile=phase]', /protected\s+generation 1/);
      const frame = probeFlow(bed.member(0).address, bed.outsider.address, 1, 1000);
      for (let i = 0; i < 20; i++) expect(bed.tap(0).send(frame(i))).toBe(true);
      await shows(page, '[data-tile=held]', /19\.5 KiB\s+held now, 20 frames/);
      await api.must('POST', '/v1/groups/web/cut', { generation: 1, epoch: 1 });
      await api.must('POST', '/v1/groups/web/commit', { generation: 1, epoch: 1 });
      await shows(page, '[data-tile=held]', /^0 B/);
      await shows(page, '#holdnote', /over 20 frames/);
      await shows(page, '#phases', /committed to released.*1$/m);
      await shows(page, '#held', /now|^\s*$/); // uPlot's canvas
      expect(await page.evaluate('document.querySelectorAll("#held canvas").length + document.querySelectorAll("#histogram canvas").length')).toBe(2);

      await page.click('#windows button:nth-child(3)');
      await shows(page, '#windows [aria-pressed=true]', /^20 s$/);
      await page.click('[data-group=batch]');
      await shows(page, '#members', /m3\s+port3/);
      await api.must('POST', '/v1/groups/batch/protect', {});
      await api.must('POST', '/v1/groups/batch/cut', { generation: 1, epoch: 1 });
      await shows(page, '#members', /waiting for ack 1/);
      await shows(page, '#alarms', /waits for acks since .*: m3/, 15_000);
      await page.setViewport({ width: 390, height: 844 });
      await shows(page, '#members', /waiting for ack 1/);
      expect(await page.evaluate('Math.max(...[...document.querySelectorAll("th")].map((head) => head.clientHeight))'), 'a phone breaks no heading').toBeLessThan(32);
      await until('nothing is wider than it', async () => (await page.evaluate('document.documentElement.scrollWidth')) === 390);
      await page.setViewport({ width: 1280, height: 900 });

      await page.click('[data-group=web]');
      await api.must('POST', '/v1/groups/web/takeover', { generation: 2, epoch: 1 });
      await shows(page, '[data-tile=phase]', /generation 2/);
      await shows(page, '#log', /taken-over web/);
      bed.deleteTap(2);
      await shows(page, '#missing', /port3/);
      await shows(page, '#ready', /not ready/);
      await page.click('[data-group=batch]');
      await shows(page, '#members', /m3\s+port3\s+2\s+0\s+port3 is missing/);
      await page.click('[data-group=web]');
      await shows(page, '[data-tile=leaks]', /^0\s+leaks$/);
      expect(complaints).toEqual([]);

      bed.daemon().signal('SIGSTOP');
      try {
        await shows(page, '#stale', /^no data since \d\d:\d\d:\d\d/, 20_000);
        await shows(page, '#link', /^no data$/);
      } finally {
        bed.daemon().signal('SIGCONT');
      }
      await until('data again', async () => (await shown(page, '#stale')) === '');
      await bed.daemon().kill();
      await shows(page, '#stale', /^no data since/, 20_000);
      await bed.daemon().start('live');
      await shows(page, '#link', /^live$/, 20_000);
      await shows(page, '[data-tile=phase]', /protected\s+generation 2/);
    });
  });

  test('its door: the key is good once, the cookie is asked of everyone, commands do not pass', async () => {
    const bed = await Bed.create({ members: ['tap'] });
    let ui: Running | undefined;
    try {
      await bed.daemon().start();
      ui = sluice(bed, 'ui');
      const url = await printedUrl(ui);
      const key = `${url.pathname}${url.search}`;
      const { status: without } = await status(url, '/ui/');
      expect(without).toBe(403);
      expect((await status(url, '/?key=wrong')).status).toBe(403);
      expect((await status(url, key, { headers: { host: 'evil.example' } })).status).toBe(403);
      const first = await status(url, key);
      expect(first.status).toBe(303);
      expect((await status(url, key)).status).toBe(403);
      const headers = { cookie: first.cookie };
      expect((await status(url, '/ui/', { headers })).status).toBe(200);
      expect((await status(url, '/v1/figures', { headers })).status).toBe(200);
      expect((await status(url, '/v1/groups/web/protect', { method: 'POST', headers })).status).toBe(405);
      for (const path of ['/metrics', '/v1/groups/web/held.pcapng', '/ui/../metrics', '/ui/%2e%2e/metrics', '//metrics']) {
        expect((await status(url, path, { headers })).status, path).toBe(404);
      }
      expect((await status(url, '/v1/figures', { headers: { cookie: `${first.cookie}x` } })).status).toBe(403);
    } finally {
      if (ui !== undefined) await end(ui);
      await bed.close();
    }
  });
});
