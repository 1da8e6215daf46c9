// How readers take the end of a stream, left to themselves: node ends.mjs NAME URL SECONDS reads URL with a
// reader that nobody closes, for so long; prints what it was given: the names of the events, and of errors.

import { XMLHttpRequest } from "./react-native-xhr.mjs";

const [name, url, seconds] = process.argv.slice(2);
const seen = [];
const NAMES = ["stream", "delta", "done", "fail", "error"];

if (name === "fetch-event-source") {
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
}
if (name === "react-native-sse") globalThis.XMLHttpRequest = XMLHttpRequest;
console.error = console.warn = () => {};

function watch(source) {
  for (const event of NAMES) source.addEventListener(event, () => seen.push(event));
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
    const onmessage = (message) => seen.push(message.event || "message");
    await fetchEventSource(url, { openWhenHidden: true, onmessage, onerror: () => void seen.push("error") });
    seen.push("resolved");
  },
  async "react-native-sse"() {
    const { default: module } = await import("react-native-sse");
    watch(new (module.default ?? module)(url, { timeoutBeforeConnection: 0 }));
  },
};

start[name]();
setTimeout(() => process.stdout.write(JSON.stringify(seen), () => process.exit(0)), seconds * 1000);
