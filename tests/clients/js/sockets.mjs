// Our client over WebSocket, through many relays that are cut: node --experimental-websocket sockets.mjs
// JOBS, where JOBS is a JSON array of { url, key, text }; prints what each read came to.

import { Penstock } from "../../../clients/js/dist/index.js";

const jobs = JSON.parse(process.argv[2]);
const results = await Promise.all(
  jobs.map(async ({ url, key, text }) => {
    const penstock = new Penstock({ url, transport: "websocket", backoff: { first: 50 } });
    const request = { model: "demo-echo", messages: [{ role: "user", content: text }] };
    const stream = penstock.start(request, { idempotencyKey: key });
    let got = "";
    const numbers = [];
    for await (const entry of stream) {
      numbers.push(entry.n);
      if (entry.type === "text") got += entry.delta;
    }
    penstock.close();
    return { got, numbers, losses: stream.losses, verified: stream.verified, stream: stream.id };
  }),
);
process.stdout.write(JSON.stringify(results), () => process.exit(0));
