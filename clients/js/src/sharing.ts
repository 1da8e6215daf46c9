// One WebSocket for all tabs of a browser: a pipe of its own for each, through the tab that has the socket.
//
// Whoever holds the group's Web Lock leads: it has the socket, and gives each message to the tab whose rid
// it names. The browser gives the lock to the next one when the leader is closed; all tabs then ask again
// from their cursors, through the new one. A leader that is there but does not answer (frozen, busy) is
// replaced: its lock is taken away from it. Tabs of one origin can do all that each of them can; sharing is
// no matter of trust, but of who is calling: a group has one user.
//
// Every pipe has a BroadcastChannel with the leader and a lock, by which the leader sees that it is gone.

import type { Api } from "./api.js";
import type { Clock } from "./backoff.js";
import { type Dial, MOVED, type Pipe, pipe } from "./pipe.js";
import { Sha256 } from "./sha256.js";

/** Milliseconds of silence after which the leader is asked for a word, and after which it is replaced. */
const BEAT = 2_000;
/** Milliseconds that a tab without a stream stays in its group. */
const LINGER = 1_000;
/** Milliseconds that a ping of anybody may go unanswered. */
const DEAD = 20_000;

type Channels = new (name: string) => BroadcastChannel;

/** What a browser has for it. */
export interface Browser {
  locks: LockManager;
  Channel: Channels;
}

/** On the group's channel: a pipe that looks for its leader; a leader that begins. */
interface Word {
  hello?: string;
  leads?: string;
}

/** On a pipe's channel; `to` or `from` is the leader. */
interface Note {
  to?: string;
  from?: string;
  text?: string;
  open?: boolean;
  closed?: number;
  bye?: boolean;
}

/** Who reads and writes on the socket. */
interface Client {
  opened(): void;
  message(text: string): void;
  closed(code: number, error?: unknown): void;
}

interface Seat {
  send(text: string): void;
  leave(): void;
}

/** The group: the same for all tabs of the same user of the same gateway. */
async function groupOf(api: Api, user: string | undefined): Promise<string> {
  const who = user ?? identityOf(await api.bearer(false));
  return `penstock ${new Sha256().text(`${api.base}\n${who}`).hex()}`;
}

/** Whose a token is, where it says so: it is another one every few minutes. */
function identityOf(token: string): string {
  const part = /^(?:pt_|[^.]+\.)([A-Za-z0-9_-]+)\./.exec(token)?.[1] ?? "";
  try {
    const said = JSON.parse(atob(part.replaceAll("-", "+").replaceAll("_", "/")));
    const who = Array.isArray(said) ? said[0].id : said.sub && `${said.iss} ${said.sub}`;
    return who ? `id ${who}` : token;
  } catch {
    return token;
  }
}

/** A tab's part in it. */
export class Sharing {
  #me = crypto.randomUUID();
  #number = 0;
  #group = "";
  #joining: Promise<void> | undefined;
  #joined = false;
  #taking = false;
  #hub: Hub | undefined;
  #word: BroadcastChannel | undefined;
  #mine = new Set<Local | Remote>();
  #resign: () => void = () => {};
  #waits: AbortController | undefined;

  constructor(
    readonly api: Api,
    readonly user: string | undefined,
    readonly dialing: Dial,
    readonly clock: Clock,
    readonly browser: Browser,
  ) {}

  /** A pipe to the socket, wherever that is. */
  dial(): Pipe {
    let end: Local | Remote | undefined;
    let over = false;
    const close = (code: number, error?: unknown) => {
      if (over) return;
      over = true;
      if (end) this.#mine.delete(end);
      end?.leave();
      this.#settle();
      one.onclose(code, error);
    };
    const one = pipe(
      (text) => end?.send(text),
      () => close(1000),
    );
    const client: Client = {
      opened: () => over || one.onopen(),
      message: (text) => over || one.onmessage(text),
      closed: close,
    };
    this.#join().then(
      () => {
        if (over) return this.#settle();
        const remote = () => new Remote(this.#group, `${this.#me} ${++this.#number}`, client, this.#word!, this, () => over);
        end = this.#hub ? new Local(this.#hub, client) : remote();
        this.#mine.add(end);
        end.begin();
      },
      (error) => close(1006, error),
    );
    return one;
  }

  /** Nobody answers: lead instead of whoever does. */
  takeOver(): void {
    if (this.#hub || this.#taking) return;
    this.#taking = true;
    this.#waits?.abort();
    this.#hold({ steal: true });
  }

  #join(): Promise<void> {
    this.#joining ??= this.#enter();
    return this.#joining;
  }

  async #enter(): Promise<void> {
    try {
      this.#group = await groupOf(this.api, this.user);
      const word = (this.#word = new this.browser.Channel(this.#group));
      word.onmessage = ({ data }: MessageEvent<Word>) => this.#heard(data);
      // Where the lock is free nobody leads: then it is us, before anybody looks for a leader.
      const led = await new Promise<boolean>((resolve) => this.#hold({ ifAvailable: true }, resolve));
      if (!led) this.#hold({ signal: (this.#waits = new AbortController()).signal });
    } catch (error) {
      this.#joining = undefined;
      throw error;
    } finally {
      this.#joined = true;
    }
  }

  #hold(how: LockOptions, told: (led: boolean) => void = () => {}): void {
    let hub: Hub | undefined;
    const lead = (lock: Lock | null) => {
      this.#taking = false;
      told(lock !== null);
      if (!lock) return undefined;
      hub = this.#hub = this.#found();
      this.#word?.postMessage({ leads: this.#me } satisfies Word);
      this.#move();
      return new Promise<void>((resolve) => {
        this.#resign = () => {
          this.#hub = undefined;
          hub?.close();
          resolve();
        };
      });
    };
    this.browser.locks.request(this.#group, how, lead).catch((error: Error) => {
      if (error.name !== "AbortError") {
        // There are no locks here after all: this tab has a socket of its own.
        this.#hub ??= this.#found();
        told(true);
      } else if (hub && hub === this.#hub) {
        // It was taken away from us.
        this.#move();
        this.#resign();
        this.#leave();
      }
    });
  }

  #found(): Hub {
    return new Hub(this.#group, this.#me, this.dialing, this.clock, this.browser, () => this.#settle());
  }

  #heard({ hello, leads }: Word): void {
    if (hello) this.#hub?.welcome(hello);
    if (leads) for (const end of [...this.#mine]) if (end instanceof Remote) end.led(leads);
  }

  /** What we have goes another way from now on. */
  #move(): void {
    for (const end of [...this.#mine]) end.client.closed(MOVED);
  }

  /** Whoever has no stream here neither leads nor waits for it; a moment later, since most come back. */
  #settle(): void {
    this.clock.after(LINGER, () => {
      if (!this.#joined || this.#mine.size || this.#hub?.busy) return;
      this.#resign();
      this.#leave();
    });
  }

  #leave(): void {
    this.#resign = () => {};
    this.#waits?.abort();
    this.#waits = undefined;
    this.#word?.close();
    this.#word = undefined;
    this.#joining = undefined;
    this.#joined = false;
  }
}

/** A pipe of the tab that has the socket. */
class Local {
  #seat: Seat | undefined;

  constructor(
    readonly hub: Hub,
    readonly client: Client,
  ) {}

  begin(): void {
    this.#seat = this.hub.attach(this.client);
  }

  send(text: string): void {
    this.#seat?.send(text);
  }

  leave(): void {
    this.#seat?.leave();
  }
}

/** A pipe of any other tab. */
class Remote {
  #channel: BroadcastChannel | undefined;
  #leader = "";
  #quiet = false;
  #stopTimer: () => void = () => {};
  #release: () => void = () => {};

  constructor(
    readonly group: string,
    readonly id: string,
    readonly client: Client,
    readonly word: BroadcastChannel,
    readonly sharing: Sharing,
    readonly over: () => boolean,
  ) {}

  begin(): void {
    const { Channel, locks } = this.sharing.browser;
    const name = `${this.group} ${this.id}`;
    this.#channel = new Channel(name);
    this.#channel.onmessage = ({ data }: MessageEvent<Note>) => this.#note(data);
    const hold = () => {
      if (this.over()) return undefined;
      this.#hello();
      return new Promise<void>((resolve) => (this.#release = resolve));
    };
    locks.request(name, hold).catch((error: unknown) => this.client.closed(1006, error));
    this.#watch();
  }

  send(text: string): void {
    this.#post({ text });
  }

  leave(): void {
    this.#stopTimer();
    this.#post({ bye: true });
    this.#channel?.close();
    this.#channel = undefined;
    this.#release();
  }

  /** Somebody leads from now on. */
  led(leader: string): void {
    if (this.#leader && this.#leader !== leader) this.client.closed(MOVED);
    else if (!this.#leader) this.#hello();
  }

  #hello(): void {
    this.word.postMessage({ hello: this.id } satisfies Word);
  }

  #post(note: Note): void {
    if (this.#leader) this.#channel?.postMessage({ to: this.#leader, ...note } satisfies Note);
  }

  #note({ from, text, open, closed }: Note): void {
    if (!from) return;
    this.#leader ||= from;
    if (from !== this.#leader) return;
    this.#quiet = false;
    if (open) this.client.opened();
    if (text !== undefined) this.client.message(text);
    if (closed !== undefined) this.client.closed(closed);
  }

  #watch(): void {
    // Any part more, so that not all take over in one moment.
    const delay = this.#quiet ? BEAT * (1 + this.sharing.clock.random()) : BEAT;
    const asked = this.#quiet;
    this.#stopTimer = this.sharing.clock.after(delay, () => {
      if (asked && this.#quiet) return this.sharing.takeOver();
      this.#quiet = true;
      if (this.#leader) this.#post({});
      else this.#hello();
      this.#watch();
    });
  }
}

/** What the leader has: sockets, and who sits at them. */
class Hub {
  #links = new Set<Link>();
  #link: Link | undefined;
  #guests = new Map<string, () => void>();

  /** `left` is called when somebody has left. */
  constructor(
    readonly group: string,
    readonly me: string,
    readonly dialing: Dial,
    readonly clock: Clock,
    readonly browser: Browser,
    readonly left: () => void,
  ) {}

  get busy(): boolean {
    return this.#guests.size > 0;
  }

  attach(client: Client): Seat {
    if (!this.#link?.takes) {
      const link: Link = new Link(this.dialing(), this.clock, () => this.#links.delete(link));
      this.#links.add((this.#link = link));
    }
    return this.#link!.seat(client);
  }

  /** Seat another tab's pipe. */
  welcome(id: string): void {
    if (this.#guests.has(id)) return;
    const name = `${this.group} ${id}`;
    const channel = new this.browser.Channel(name);
    const post = (note: Note) => channel.postMessage({ from: this.me, ...note } satisfies Note);
    const watch = new AbortController();
    const drop = () => {
      if (!this.#guests.delete(id)) return;
      watch.abort();
      seat.leave();
      channel.close();
      this.left();
    };
    this.#guests.set(id, drop);
    post({});
    const seat = this.attach({
      opened: () => post({ open: true }),
      message: (text) => post({ text }),
      closed: (code) => (post({ closed: code }), drop()),
    });
    channel.onmessage = ({ data }: MessageEvent<Note>) => {
      if (data.to !== this.me) return;
      if (data.text !== undefined) seat.send(data.text);
      else if (data.bye) drop();
      else post({});
    };
    // It is given to us once its tab is gone.
    this.browser.locks.request(name, { signal: watch.signal }, drop).catch(() => {});
  }

  close(): void {
    for (const drop of [...this.#guests.values()]) drop();
    for (const link of [...this.#links]) link.close();
  }
}

/** One socket and whose rids go over it. */
class Link {
  takes = true;
  #open = false;
  #clients = new Set<Client>();
  #owners = new Map<string, Client>();
  #asked: number | undefined;

  constructor(
    readonly pipe: Pipe,
    readonly clock: Clock,
    over: () => void,
  ) {
    pipe.onopen = () => {
      this.#open = true;
      for (const client of [...this.#clients]) client.opened();
    };
    pipe.onmessage = (text) => this.#message(text);
    pipe.onclose = (code, error) => {
      this.takes = this.#open = false;
      over();
      for (const client of [...this.#clients]) client.closed(code, error);
    };
  }

  seat(client: Client): Seat {
    this.#clients.add(client);
    if (this.#open) queueMicrotask(() => this.#open && this.#clients.has(client) && client.opened());
    return {
      send: (text) => {
        const { type, rid } = JSON.parse(text);
        if (type === "ping" && this.#dead()) return;
        if (type === "detach") this.#owners.delete(rid);
        else if (rid !== undefined) this.#owners.set(rid, client);
        this.pipe.send(text);
      },
      leave: () => {
        this.#clients.delete(client);
        for (const [rid, owner] of this.#owners) {
          if (owner !== client) continue;
          this.#owners.delete(rid);
          this.pipe.send(JSON.stringify({ type: "detach", rid }));
        }
        if (!this.#clients.size) this.close();
      },
    };
  }

  close(): void {
    this.takes = false;
    this.pipe.close();
  }

  /** Whether nothing came since somebody asked; then nobody should wait here. */
  #dead(): boolean {
    const now = this.clock.now();
    this.#asked ??= now;
    if (now - this.#asked < DEAD) return false;
    this.close();
    return true;
  }

  #message(text: string): void {
    this.#asked = undefined;
    let said: { type?: string; rid?: string; code?: string };
    try {
      said = JSON.parse(text);
    } catch {
      return this.close(); // whoever says this is no gateway
    }
    const { type, rid, code } = said;
    if (type === "goaway" || code === "too_many_rids") this.takes = false;
    if (rid === undefined) {
      for (const client of [...this.#clients]) client.message(text);
      return;
    }
    const owner = this.#owners.get(rid);
    if (type === "end" || type === "none" || type === "err") this.#owners.delete(rid);
    owner?.message(text);
  }
}
