/** A checkpoint engine. Where it says "your part", stop, save and ship your VMs. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Refused, SluiceClient } from 'sluice';

const [group = 'web', epochs = '100', interval = '25'] = process.argv.slice(2);
const sluice = new SluiceClient({ socket: process.env['SLUICE_CONTROL_SOCKET'] ?? '/run/sluice/control.sock' });
const now = await sluice.group(group);
const { generation, open } = now.phase === 'idle' ? await sluice.protect(group) : now;
try {
  for (let epoch = open; epoch < open + Number(epochs); epoch++) {
    await sleep(Number(interval));
    // your part: stop the VMs, save what changed since the last checkpoint
    await sluice.cut(group, { generation, epoch }); // what they sent until here belongs to this checkpoint
    // your part: let the VMs run; ship the checkpoint, wait until it is durable
    await sluice.commit(group, { generation, epoch }, { wait: true }); // now the world sees what they sent
  }
  const { released, held } = await sluice.group(group);
  console.log(`released ${released}, still held ${held.frames}`);
} catch (error) {
  if (error instanceof Refused && error.code === 'fenced') console.error('another engine took the group over: stop these VMs');
  else throw error;
} finally {
  await sluice.close();
}
