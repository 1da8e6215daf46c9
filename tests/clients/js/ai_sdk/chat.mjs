// `useChat` without a page: the `Chat` that the hook wraps, in Node.js. `HOOK` and `SDK` are replaced by the
// packages of one version. node FILE JOBS, where JOBS is a file with { jobs, lanes } as JSON. A job:
//
//     { do: "ask" | "stop" | "leave" | "resume", api, id, model, text, messages }
//
// Prints what each came to. Where "leave" is among them, the process is gone as soon as its words are there.
import { readFile, writeFile } from 'node:fs/promises';
import { Chat } from 'HOOK';
import { DefaultChatTransport } from 'SDK';

const VERSION = Number('VERSION');
const SOON = 20;
const sleep = (milliseconds) => new Promise((passed) => setTimeout(passed, milliseconds));

class Page {
  constructor({ api, id, model, messages = [] }) {
    this.settings = { id, transport: new DefaultChatTransport({ api, body: { model } }) };
    this.lost = 0;
    this.errors = [];
    this.show(messages);
  }

  show(messages) {
    const onFinish = ({ isDisconnect }) => (this.disconnected = Boolean(isDisconnect));
    const onError = (error) => this.errors.push(`${error}`);
    this.chat = new Chat({ ...this.settings, messages, onFinish, onError });
  }

  get text() {
    const [, answer] = this.chat.messages;
    return (answer?.parts ?? []).map((part) => (part.type === 'text' ? part.text : '')).join('');
  }

  async said(words) {
    while (!this.text.includes(words)) await sleep(SOON);
  }

  /** Come back for as long as the connection is lost, as docs/guide/vercel-ai-sdk.md says. */
  async whole() {
    while (this.chat.status === 'error') {
      if ((this.lost += 1) > 20) return 'lost again and again';
      await sleep(SOON);
      const [asked, answer] = this.chat.messages;
      if (VERSION < 7) this.show([asked]); // they add what is replayed to what they had
      await this.chat.resumeStream();
      if (this.chat.status !== 'error' && !this.chat.messages[1]) return `nothing to resume after ${JSON.stringify(answer)}`;
    }
    return this.chat.status;
  }

  seen(how, more = {}) {
    return { how, messages: this.chat.messages, lost: this.lost, disconnected: this.disconnected, errors: this.errors, ...more };
  }
}

const deeds = {
  async ask(page, job) {
    await page.chat.sendMessage({ text: job.text });
    return page.seen(await page.whole());
  },

  async stop(page, job) {
    const sending = page.chat.sendMessage({ text: job.text });
    await page.said(job.until);
    await page.chat.stop();
    const answer = await fetch(`${job.api}/${job.id}/stop`, { method: 'POST' });
    const gone = await (await fetch(job.upstream)).json(); // who has left the provider by now
    await sending;
    return page.seen(page.chat.status, { stopped: (await answer.json()).stopped, gone });
  },

  async leave(page, job) {
    page.chat.sendMessage({ text: job.text });
    await page.said(job.until);
    return page.seen('left');
  },

  async resume(page) {
    await page.chat.resumeStream();
    return page.seen(await page.whole());
  },
};

const [file] = process.argv.slice(2);
const { jobs, lanes, patience } = JSON.parse(await readFile(file, 'utf8'));
const results = [];
const queue = [...jobs.entries()];
console.error = () => {}; // the SDK reports each cut

async function lane() {
  for (let next; (next = queue.shift()); ) {
    const [n, job] = next;
    let timer;
    const page = new Page(job);
    const late = new Promise((resolve) => {
      timer = setTimeout(() => resolve(page.seen(`stuck as ${page.chat.status}`)), patience);
    });
    const failed = (error) => page.seen(`${error?.stack ?? error}`);
    results[n] = await Promise.race([deeds[job.do](page, job).catch(failed), late]);
    clearTimeout(timer);
  }
}

await Promise.all(Array.from({ length: lanes }, lane));
await writeFile(`${file}.results`, JSON.stringify(results));
process.exit(0); // whatever is open
