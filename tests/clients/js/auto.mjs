// Our client with `transport: "auto"` through proxies: node --experimental-websocket auto.mjs JOBS, where JOBS
// is a JSON array of { url, text, times }; prints for each what its answers came to, one after another.

import { Penstock } from "../../../clients/js/dist/index.js";

const jobs = JSON.parse(process.argv[2]);
const results = await Promise.all(
  jobs.map(async ({ url, text, times }) => {
    let sockets = 0;
    class Counted extends WebSocket {
      constructor(...all) {
        super(...all);
        sockets += 1;
      }
    }
    let requests = 0;
    const fetch = (...all) => ((requests += 1), globalThis.fetch(...all));
    const penstock = new Penstock({ url, transport: "auto", WebSocket: Counted, fetch, backoff: { first: 50 } });
    const answers = [];
    for (let time = 0; time < times; time += 1) {
      const stream = penstock.start({ model: "demo-echo", messages: [{ role: "user", content: `${text}${time}` }] });
      const numbers = [];
      for await (const { n } of stream) numbers.push(n);
      answers.push({ text: stream.text, ordered: numbers.every((n, i) => n === i + 1), verified: stream.verified, losses: stream.losses });
    }
    penstock.close();
    return { answers, sockets, requests };
  }),
);
process.stdout.write(JSON.stringify(results), () => process.exit(0));
