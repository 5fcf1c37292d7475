/**
 * Where a guest's `send` ends outside: reads each connection to its end and answers how many bytes
 * came (8 bytes, little endian), as the guests' own sink does. Says "listening" once it is.
 *
 *   node sink-child.js PORT
 */
import { createServer } from 'node:net';

const server = createServer({ allowHalfOpen: true }, (socket) => {
  let bytes = 0n;
  socket.on('data', (chunk) => (bytes += BigInt(chunk.length)));
  socket.on('end', () => {
    const answer = Buffer.alloc(8);
    answer.writeBigUInt64LE(bytes);
    socket.end(answer);
  });
  socket.on('error', () => socket.destroy()); // the guest says that its transfer failed
});
server.listen(Number(process.argv[2]), () => console.log('listening'));
