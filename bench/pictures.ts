/**
 * Pictures of the dashboard to look at, of real daemons in real trouble, by a headless Chromium over
 * `sluice ui`; and `sluice top` as text. Into out/pictures: SCENE-desktop-light.png and so on.
 *
 *   one host      idle ─ load ─ takeover ─ port lost ─ engine silent, ring overflows ─ daemon frozen
 *   three hosts   load ─ a host late ─ host lost ─ taken over ─ ledger cut off ─ isolated, ports closed
 *
 * Nothing is judged here: the eye does that. Leaves nothing behind but the pictures.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import { abandonOnSignal } from './bed/abandon.ts';
import { Bed } from './bed/bed.ts';
import { Cluster } from './bed/cluster.ts';
import { end, ipBatch, sleep, start, until, type Running } from './bed/commands.ts';
import { repositoryRoot, type Daemon } from './bed/daemon.ts';
import { Engine } from './bed/engine.ts';
import { Oracle } from './bed/oracle.ts';
import { probeFlow } from './bed/probe.ts';
import type { Tap } from './bed/tap.ts';
import type { HostsBed } from './bed/hosts.ts';
import { HostsEngine } from './hosts/engine.ts';
import { GROUP, groupFile, members, speakers, type Seat } from './hosts/story.ts';
import { HostsTraffic } from './hosts/traffic.ts';
import { mustBeRoot } from './vm/report.ts';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => existsSync(path));
const OUT = join(repositoryRoot(), 'out/pictures');
const COMMAND = join(repositoryRoot(), 'bin/sluice');
const SCREENS = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844, deviceScaleFactor: 2 } };
/** Two draws of the page and one packet of samples. */
const SETTLE_MS = 900;
/** Once in many runs Chromium never answers for one picture: it is asked for it again then. */
const PICTURE_MS = 30_000;

/** A browser that looks at one daemon. */
class Camera {
  readonly #ui: Running;
  readonly #browser: Browser;
  readonly #page: Page;
  readonly #daemon: Daemon;

  private constructor(daemon: Daemon, ui: Running, browser: Browser, page: Page) {
    this.#daemon = daemon;
    this.#ui = ui;
    this.#browser = browser;
    this.#page = page;
  }

  static async at(daemon: Daemon): Promise<Camera> {
    const ui = start(process.execPath, [COMMAND, '--socket', daemon.socket, 'ui']);
    await until('sluice ui prints its address', () => /http:\S+/.test(ui.output()));
    const browser = await puppeteer.launch({ executablePath: CHROMIUM ?? '', args: ['--no-sandbox', '--disable-gpu'], timeout: 60_000, protocolTimeout: PICTURE_MS });
    const page = await browser.newPage();
    await page.goto(/http:\S+/.exec(ui.output())?.[0] ?? '');
    return new Camera(daemon, ui, browser, page);
  }

  /** One scene, in both colours, on both screens. `text`: also what `sluice top` says. */
  async take(scene: string, { seconds = 1, top = true } = {}): Promise<void> {
    for (const [screen, size] of Object.entries(SCREENS)) {
      await this.#page.setViewport(size);
      await this.#page.evaluate(`[...document.querySelectorAll('#windows button')].find((button) => button.textContent === '${seconds} s').click()`);
      for (const colours of ['light', 'dark']) {
        await this.#page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: colours }]);
        await sleep(SETTLE_MS);
        const look = () => this.#page.screenshot({ path: join(OUT, `${scene}-${screen}-${colours}.png`), fullPage: true, captureBeyondViewport: true });
        await look().catch(look);
      }
    }
    if (top) {
      const text = start(process.execPath, [COMMAND, '--socket', this.#daemon.socket, 'top', '--once']);
      await text.ended;
      writeFileSync(join(OUT, `${scene}-top.txt`), text.output());
    }
    console.log(`  ${scene}`);
  }

  async close(): Promise<void> {
    await this.#browser.close();
    await end(this.#ui);
  }
}

/** Frames to the outside from these taps until it is stopped, unevenly as traffic is. */
function chatter(bed: Bed, taps: readonly number[], bytes: number): () => void {
  const flows = taps.map((i): { tap: Tap; frame: (seq: number) => Uint8Array } => ({ tap: bed.tap(i), frame: probeFlow(bed.member(i).address, bed.outsider.address, i + 1, bytes) }));
  let seq = 0;
  const timer = setInterval(() => {
    for (const { tap, frame } of flows) for (let n = 1 + Math.floor(Math.random() * 3); n > 0; n--) tap.send(frame(seq++));
    seq %= 1_000_000;
  }, 4);
  return () => clearInterval(timer);
}

async function oneHost(): Promise<void> {
  const bed = await Bed.create({ members: ['tap', 'tap', 'tap'] });
  let camera: Camera | undefined;
  let quiet = (): void => undefined;
  try {
    await bed.daemon().start();
    const { api } = bed.daemon();
    camera = await Camera.at(bed.daemon());
    await camera.take('no-group');
    const [front, store, other] = bed.members.map(({ port, mac }, i) => ({ name: ['front', 'store', 'worker'][i], port, mac }));
    const web = { hold: { bytes: 1024 * 1024 }, members: [front, store] };
    await api.must('PUT', '/v1/groups/web', web);
    await api.must('PUT', '/v1/groups/batch', { commit: 'acks', members: [other] });
    await camera.take('idle');

    await api.must('POST', '/v1/groups/batch/protect', {});
    const engine = new Engine(api, 'web');
    await engine.protect(web);
    quiet = chatter(bed, [0, 1], 900);
    engine.run({ intervalMs: 25, commitDelayMs: 15 });
    await sleep(5000);
    await camera.take('load');
    await camera.take('load-20s', { seconds: 20, top: false });

    await engine.stop();
    await engine.takeover((await engine.sync()).committed); // the open epoch and what is sealed is lost
    engine.run({ intervalMs: 25, commitDelayMs: 15 });
    await sleep(1500);
    await camera.take('takeover', { seconds: 20 });

    bed.deleteTap(2);
    await sleep(2000);
    await camera.take('port-lost', { seconds: 5 });

    await engine.stop();
    await until('the ring overflows', async () => /"overflow":[1-9]/.test(JSON.stringify(await api.must('GET', '/v1/figures'))));
    await sleep(2000);
    await camera.take('overflow', { seconds: 20 });

    bed.daemon().signal('SIGSTOP');
    await sleep(3000);
    await camera.take('frozen', { seconds: 20, top: false });
    bed.daemon().signal('SIGCONT');
  } finally {
    quiet();
    await camera?.close();
    await bed.close();
  }
}

const BEFORE: readonly Seat[] = [0, 1, 2, 3].map((tap, is) => ({ is, tap }));
const AFTER: readonly Seat[] = [0, 1, 2, 4].map((tap, is) => ({ is, tap }));

/** What tells a host that it is cut off: a gateway on the members' network. */
const GATEWAY = '10.79.0.254';
async function addressed(bed: HostsBed): Promise<void> {
  await ipBatch(bed.switch, [`addr add ${GATEWAY}/24 dev sw0`]);
  for (const [i, host] of bed.hosts.entries()) await ipBatch(host, [`addr add 10.79.0.${i + 1}/24 dev br0`]);
}

async function threeHosts(): Promise<void> {
  const cluster = await Cluster.create(
    { hosts: 3, members: [0, 0, 1, 2, 1].map((host) => ({ kind: 'tap', host })), isolation: { addresses: [GATEWAY], policy: 'close' } },
    { prepare: addressed, env: () => ({}) },
  );
  const oracle = new Oracle();
  const engine = new HostsEngine(cluster, oracle, GROUP);
  const traffic = new HostsTraffic(oracle, cluster.bed.outside(), cluster.bed.outsider.address, engine.bounds);
  let camera: Camera | undefined;
  try {
    await engine.protect(groupFile(cluster, BEFORE), speakers(cluster, BEFORE));
    const life = traffic.begin(1, speakers(cluster, BEFORE));
    traffic.run();
    engine.run();
    camera = await Camera.at(cluster.daemon(0));
    await sleep(4000);
    await camera.take('hosts-load', { seconds: 5 });
    await cluster.ledger(1, false);
    await sleep(3000);
    await camera.take('hosts-late', { seconds: 20 });
    await cluster.ledger(1, true);
    await sleep(4000);
    await cluster.daemon(2).kill();
    await cluster.ports(2, false);
    life.silent.add(2);
    await sleep(6000);
    await camera.take('hosts-lost', { seconds: 20 });
    await engine.stop();
    const homes = speakers(cluster, AFTER);
    await engine.takeover(members(cluster, AFTER), homes);
    traffic.end(life, engine.open - 1);
    const next = traffic.begin(2, homes);
    engine.run();
    await sleep(2000);
    await camera.take('hosts-takeover', { seconds: 20 });
    await cluster.ledger(0, false);
    await sleep(8000);
    await camera.take('hosts-no-ledger', { seconds: 20 });
    next.silent.add(0);
    await cluster.bed.cable(0, false);
    await until('h1 is isolated', async () => JSON.stringify((await cluster.daemon(0).api.call('GET', '/readyz')).body).includes('ports are closed'));
    await sleep(2000);
    await camera.take('hosts-isolated', { seconds: 20 });
    await cluster.bed.cable(0, true);
    await cluster.ledger(0, true);
  } finally {
    traffic.stop();
    await camera?.close();
    await engine.stop();
    await cluster.close();
  }
}

async function main(): Promise<void> {
  mustBeRoot('taking the pictures');
  abandonOnSignal();
  mkdirSync(OUT, { recursive: true });
  const only = process.argv[2];
  if (only !== 'hosts') await oneHost();
  if (only !== 'one') await threeHosts();
  console.log('\n  out/pictures');
}

await main().catch((error: unknown) => {
  console.error(`pictures: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
