// @ts-check
// Conversations, kept in this browser (IndexedDB) and agreed on by all its tabs.
//
// A conversation is a tree: every question and every answer is a node that names the one before it,
// so another version of either stands beside the first, and nothing that was said is overwritten. Which
// versions are shown is the conversation's `chosen`. Tabs only ever add nodes, or bring an answer
// further, in one transaction each: so they cannot undo one another. Where there is no storage, or no
// room, things last as long as the page, and the person is told.

const DATABASE = "penstock";
const VERSION = 1;
const MAX_CONVERSATIONS = 500;
const MAX_TITLE = 60;
export const ROOT = "";

/**
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string} title
 * @property {number} created
 * @property {number} updated
 * @property {Record<string, string>} chosen   by node: which of those that follow it is shown
 */

/**
 * @typedef {object} UserNode
 * @property {string} id
 * @property {string} conversation
 * @property {string} parent
 * @property {"user"} role
 * @property {number} at
 * @property {string} text
 * @property {{id: string, name: string, text: string}[]} [results]  of tools, instead of text
 */

/**
 * @typedef {object} AnswerNode
 * @property {string} id
 * @property {string} conversation
 * @property {string} parent
 * @property {"answer"} role
 * @property {number} at
 * @property {string} model
 * @property {import("./preferences.js").Settings} settings
 * @property {string} key       the Idempotency-Key
 * @property {string} body      the request, until its stream is known; it is repeated byte for byte
 * @property {import("./answer.js").Answer} answer
 * @property {import("./run.js").Figures | null} figures
 */

/** @typedef {UserNode | AnswerNode} Node */

/** An id that sorts by time. */
export function newId() {
  const random = crypto.getRandomValues(new Uint8Array(10));
  return Date.now().toString(36) + [...random].map((byte) => (byte % 36).toString(36)).join("");
}

/** The first line of what was said, cut at a word. @param {string} text */
export function titleOf(text) {
  const line = text.trim().split("\n")[0].replace(/\s+/g, " ");
  if (line.length <= MAX_TITLE) return line;
  const cut = line.slice(0, MAX_TITLE);
  return `${cut.slice(0, Math.max(cut.lastIndexOf(" "), MAX_TITLE - 20)).trimEnd()}…`;
}

/** Emits `change` ({conversation}) for what another tab did, `list` for any change of the list, and
 * `trouble` ("full" | "none" | "dropped"). */
export class Library extends EventTarget {
  /** @type {IDBDatabase | null} */
  #database = null;
  /** @type {Map<string, Conversation>} */
  #conversations = new Map();
  /** What storage did not take, or all there is without storage. @type {Map<string, Node>} */
  #unsaved = new Map();
  #channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("penstock.library") : null;
  #full = false;
  /** What went wrong last: before anybody listened, too. */
  trouble = "";

  static async open() {
    const library = new Library();
    try {
      library.#database = await openDatabase();
      await library.#load();
    } catch {
      library.#database = null;
      library.#trouble("none");
    }
    library.#channel?.addEventListener("message", (event) => library.#heard(event.data));
    return library;
  }

  /** Newest first. @returns {Conversation[]} */
  list() {
    return [...this.#conversations.values()].sort((a, b) => b.updated - a.updated);
  }

  /** @param {string} id */
  get(id) {
    return this.#conversations.get(id);
  }

  /** The nodes of a conversation, by id. @param {string} conversation @returns {Promise<Map<string, Node>>} */
  async nodes(conversation) {
    /** @type {Map<string, Node>} */
    const found = new Map();
    if (this.#database) {
      try {
        const index = this.#database.transaction("nodes").objectStore("nodes").index("conversation");
        for (const node of await result(index.getAll(conversation))) found.set(node.id, node);
      } catch {
        this.#trouble("none");
      }
    }
    for (const node of this.#unsaved.values()) if (node.conversation === conversation) found.set(node.id, node);
    return found;
  }

  /** @param {string} title @returns {Promise<Conversation>} */
  async create(title) {
    const now = Date.now();
    const made = { id: newId(), title, created: now, updated: now, chosen: {} };
    await this.#put(made);
    await this.#bound();
    return made;
  }

  /** Change a conversation as it is now, whoever changed it last. @param {string} id @param {(conversation: Conversation) => void} change */
  async update(id, change) {
    const known = this.#conversations.get(id);
    if (!known) return;
    if (!this.#database) {
      change(known);
      this.#list();
      return;
    }
    try {
      const store = this.#database.transaction("conversations", "readwrite").objectStore("conversations");
      const current = /** @type {Conversation | undefined} */ (await result(store.get(id)));
      if (!current) return; // another tab deleted it
      change(current);
      await result(store.put(current));
      this.#conversations.set(id, current);
    } catch (error) {
      change(known);
      this.#failed(error);
    }
    this.#list();
    this.#say(id);
  }

  /** Add a node and show it in its place. @param {Node} node */
  async add(node) {
    await this.#write(node);
    await this.update(node.conversation, (conversation) => {
      conversation.chosen[node.parent] = node.id;
      conversation.updated = Date.now();
    });
  }

  /** Show this one among its versions. @param {Node} node */
  async choose(node) {
    await this.update(node.conversation, (conversation) => {
      conversation.chosen[node.parent] = node.id;
    });
  }

  /** Keep how far an answer is; never takes one back that is further. @param {AnswerNode} node */
  async progress(node) {
    if (!this.#database || this.#unsaved.has(node.id)) {
      if (this.#conversations.has(node.conversation)) this.#unsaved.set(node.id, node);
      return;
    }
    try {
      const store = this.#database.transaction("nodes", "readwrite").objectStore("nodes");
      const kept = /** @type {AnswerNode | undefined} */ (await result(store.get(node.id)));
      if (!kept) return; // deleted meanwhile: it does not come back
      if (kept.answer.end && kept.answer.end.status !== "unreadable" && !node.answer.end) return;
      if (kept.answer.n > node.answer.n && !node.answer.end) return;
      await result(store.put(node));
      // Other tabs read the stream themselves; they want to know that there is one, and its end.
      if (node.answer.end || (node.answer.stream && !kept.answer.stream)) this.#say(node.conversation, node.id);
    } catch (error) {
      this.#unsaved.set(node.id, node);
      this.#failed(error);
    }
  }

  /** @param {string} id */
  async remove(id) {
    this.#conversations.delete(id);
    for (const node of [...this.#unsaved.values()]) if (node.conversation === id) this.#unsaved.delete(node.id);
    if (this.#database) {
      try {
        const change = this.#database.transaction(["conversations", "nodes"], "readwrite");
        change.objectStore("conversations").delete(id);
        const keys = await result(change.objectStore("nodes").index("conversation").getAllKeys(id));
        for (const key of keys) change.objectStore("nodes").delete(key);
        await finished(change);
        this.#full = false;
      } catch (error) {
        this.#failed(error);
      }
    }
    this.#list();
    this.#say(id);
  }

  // --- inside -------------------------------------------------------------------------------------

  async #load() {
    const store = /** @type {IDBDatabase} */ (this.#database).transaction("conversations").objectStore("conversations");
    this.#conversations = new Map((await result(store.getAll())).map((/** @type {Conversation} */ one) => [one.id, one]));
  }

  /** @param {Conversation} conversation */
  async #put(conversation) {
    this.#conversations.set(conversation.id, conversation);
    if (this.#database) {
      try {
        await result(this.#database.transaction("conversations", "readwrite").objectStore("conversations").put(conversation));
      } catch (error) {
        this.#failed(error);
      }
    }
    this.#list();
    this.#say(conversation.id);
  }

  /** @param {Node} node */
  async #write(node) {
    if (this.#database) {
      try {
        await result(this.#database.transaction("nodes", "readwrite").objectStore("nodes").put(node));
        return;
      } catch (error) {
        this.#failed(error);
      }
    }
    this.#unsaved.set(node.id, node);
  }

  /** There is room for so many; the oldest go, and the person is told. */
  async #bound() {
    const surplus = this.list().slice(MAX_CONVERSATIONS);
    for (const conversation of surplus) await this.remove(conversation.id);
    if (surplus.length) this.#trouble("dropped");
  }

  /** @param {unknown} error */
  #failed(error) {
    const full = error instanceof DOMException && error.name === "QuotaExceededError";
    if (this.#full) return;
    this.#full = true;
    this.#trouble(full ? "full" : "none");
  }

  /** @param {string} what */
  #trouble(what) {
    this.trouble = what;
    this.dispatchEvent(new CustomEvent("trouble", { detail: what }));
  }

  #list() {
    this.dispatchEvent(new CustomEvent("list"));
  }

  /** @param {string} conversation @param {string} [node] */
  #say(conversation, node = "") {
    this.#channel?.postMessage({ conversation, node });
  }

  /** @param {{conversation: string, node: string}} said */
  async #heard({ conversation, node }) {
    if (!this.#database) return;
    try {
      if (!node) {
        const store = this.#database.transaction("conversations").objectStore("conversations");
        const current = await result(store.get(conversation));
        if (current) this.#conversations.set(conversation, current);
        else this.#conversations.delete(conversation);
        this.#list();
      }
      this.dispatchEvent(new CustomEvent("change", { detail: { conversation } }));
    } catch {
      // The database is closing: so is the page.
    }
  }
}

/** @returns {Promise<IDBDatabase>} */
function openDatabase() {
  const request = indexedDB.open(DATABASE, VERSION);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("conversations", { keyPath: "id" });
    request.result.createObjectStore("nodes", { keyPath: "id" }).createIndex("conversation", "conversation");
  };
  return result(request).then((database) => {
    database.onversionchange = () => database.close();
    return database;
  });
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBTransaction} transaction */
function finished(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(undefined);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

// --- the tree ---------------------------------------------------------------------------------------

/** The nodes that follow `parent`, oldest first. @param {Map<string, Node>} nodes @param {string} parent */
export function versions(nodes, parent) {
  return [...nodes.values()].filter((node) => node.parent === parent).sort((a, b) => a.at - b.at || (a.id < b.id ? -1 : 1));
}

/** What is shown, from the first question on. @param {Map<string, Node>} nodes @param {Record<string, string>} chosen @returns {Node[]} */
export function pathOf(nodes, chosen) {
  /** @type {Map<string, Node[]>} */
  const following = new Map();
  for (const node of [...nodes.values()].sort((a, b) => a.at - b.at)) {
    following.set(node.parent, [...(following.get(node.parent) ?? []), node]);
  }
  const path = [];
  const seen = new Set();
  for (let at = ROOT; following.has(at) && !seen.has(at); ) {
    seen.add(at);
    const all = /** @type {Node[]} */ (following.get(at));
    const node = all.find((one) => one.id === chosen[at]) ?? /** @type {Node} */ (all.at(-1));
    path.push(node);
    at = node.id;
  }
  return path;
}

/** The nodes from the first to `id`. @param {Map<string, Node>} nodes @param {string} id @returns {Node[]} */
export function pathTo(nodes, id) {
  const path = [];
  for (let node = nodes.get(id); node && path.length <= nodes.size; node = nodes.get(node.parent)) path.unshift(node);
  return path;
}
