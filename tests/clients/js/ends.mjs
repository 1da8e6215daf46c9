// How readers take the end of a stream, left to themselves: node ends.mjs NAME URL SECONDS reads URL with a
// reader that nobody closes, until it has stopped or it is plain that it will not, or for so long; prints
// what it was given: the names of the events, of errors and of connections.

import { XMLHttpRequest } from "./react-native-xhr.mjs";

const [name, url, seconds] = process.argv.slice(2);
const seen = [];
const NAMES = ["stream", "delta", "done", "fail", "error", "open"];
const ENOUGH = 4; // connections and errors of one that goes on and on

if (name === "fetch-event-source") {
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
}
if (name === "react-native-sse") globalThis.XMLHttpRequest = XMLHttpRequest;
console.error = console.warn = () => {};

function watch(source) {
  for (const event of NAMES) {
    source.addEventListener(event, () => {
      note(event);
      if (source.readyState === 2) finish();
    });
  }
}

function note(event) {
  seen.push(event);
  if (seen.filter((name) => name === "error" || name === "open").length >= ENOUGH) finish();
}

function finish() {
  process.stdout.write(JSON.stringify(seen), () => process.exit(0));
}

const start = {
  async eventsource() {
    const { EventSource } = await import("eventsource");
    watch(new EventSource(url));
  },
  async "event-source-polyfill"() {
    const { default: module } = await import("event-source-polyfill");
    watch(new module.EventSourcePolyfill(url));
  },
  async "fetch-event-source"() {
    const { fetchEventSource } = await import("@microsoft/fetch-event-source");
    const onmessage = (message) => note(message.event || "message");
    await fetchEventSource(url, { openWhenHidden: true, onmessage, onerror: () => note("error") });
    note("resolved");
    finish();
  },
  async "react-native-sse"() {
    const { default: module } = await import("react-native-sse");
    watch(new (module.default ?? module)(url, { timeoutBeforeConnection: 0, pollingInterval: 100 }));
  },
};

start[name]();
setTimeout(finish, seconds * 1000);
